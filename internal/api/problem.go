package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The refusals that only HTTP knows.
const (
	MethodNotAllowed     job.Code = "method_not_allowed"     // the path exists, the method does not; the answer has Allow
	UnsupportedMediaType job.Code = "unsupported_media_type" // the body is of a type that the call does not take
	RequestTimeout       job.Code = "request_timeout"        // the body took too long to arrive
)

// StatusOf is the HTTP status of a code: the one table between the two.
func StatusOf(code job.Code) int {
	switch code {
	case job.Invalid:
		return http.StatusBadRequest
	case job.BadToken:
		return http.StatusUnauthorized
	case job.Forbidden:
		return http.StatusForbidden
	case job.NotFound, job.UnknownQueue:
		return http.StatusNotFound
	case MethodNotAllowed:
		return http.StatusMethodNotAllowed
	case job.Conflict, job.NotFinished, job.NotRetryable, job.LeaseLost, job.BatchRefused:
		return http.StatusConflict
	case RequestTimeout:
		return http.StatusRequestTimeout
	case job.TooLarge:
		return http.StatusRequestEntityTooLarge
	case UnsupportedMediaType:
		return http.StatusUnsupportedMediaType
	case job.IdempotencyMismatch:
		return http.StatusUnprocessableEntity
	case job.KeyFull:
		return http.StatusTooManyRequests
	case job.QueueFull, job.Overloaded, job.NoSpace, job.ShuttingDown, job.Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// Problem is an error as it stands on the wire: application/problem+json of RFC
// 9457, with the code that programs match on.
type Problem struct {
	Type   string       `json:"type"` // "about:blank": the code says more than a URI would
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Code   job.Code     `json:"code"`
	Field  string       `json:"field,omitempty"`  // a JSON pointer to what is wrong
	Error  *job.Failure `json:"error,omitempty"`  // why the job failed, where that is the reason
	Errors []ItemError  `json:"errors,omitempty"` // of a refusal of many: what is wrong with whom
}

// Fault is what is wrong with one of many that were refused together.
type ItemError struct {
	Field  string   `json:"field"` // a JSON pointer to it
	Status int      `json:"status"`
	Code   job.Code `json:"code"`
	Detail string   `json:"detail"`
}

// FaultOf is an error as one of many.
func ItemErrorOf(err error) ItemError {
	p := ProblemOf(err)
	return ItemError{Field: p.Field, Status: p.Status, Code: p.Code, Detail: p.Detail}
}

// Together is a refusal of many because of some: the problem is the first one's,
// and carries those that are listed.
type BatchError struct {
	First  error
	Errors []ItemError
}

func (e *BatchError) Error() string { return e.First.Error() }

// Unwrap gives the first.
func (e *BatchError) Unwrap() error { return e.First }

// JobFailed is a refusal because of how a job ended: the problem then carries the
// job's own failure.
type JobFailed struct {
	Refusal *job.Error
	Failure *job.Failure
}

func (e *JobFailed) Error() string { return e.Refusal.Error() }

// Unwrap gives the refusal.
func (e *JobFailed) Unwrap() error { return e.Refusal }

// ProblemOf translates an error. What is not a *[job.Error] is a defect of ours,
// and nothing of it is shown.
func ProblemOf(err error) Problem {
	p := Problem{Type: "about:blank", Code: job.Internal, Detail: "Something went wrong in the server; its log says what, under this answer's X-Request-ID."}
	if e, ok := errors.AsType[*job.Error](err); ok {
		p.Code, p.Detail, p.Field = e.Code, e.Message, e.Field
	}
	if e, ok := errors.AsType[*JobFailed](err); ok {
		p.Error = e.Failure
	}
	if e, ok := errors.AsType[*BatchError](err); ok {
		p.Errors = e.Errors
	}
	p.Status = StatusOf(p.Code)
	p.Title = http.StatusText(p.Status)
	return p
}

// WriteProblem is the [ErrorWriter] of the native API: the problem that err is.
func WriteProblem(w http.ResponseWriter, err error) {
	p := ProblemOf(err)
	WriteProblemAs(w, err, p.Status, p)
}

// WriteProblemAs answers with a problem that has more members than [Problem]. Retry-After
// is set where waiting helps: what the error says, and a second where it says nothing.
func WriteProblemAs(w http.ResponseWriter, err error, status int, problem any) {
	if s := RetryAfter(err); s > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(s))
	}
	if status == http.StatusUnauthorized {
		w.Header()["Www-Authenticate"] = bearerChallenge
	}
	body, jsonErr := json.Marshal(problem)
	if jsonErr != nil {
		panic(fmt.Errorf("api: a problem that is no JSON: %w", jsonErr))
	}
	Write(w, status, problemType, body)
}

// bearerChallenge is the WWW-Authenticate of a 401 (RFC 6750, section 3). It is never
// changed.
var bearerChallenge = []string{`Bearer error="invalid_token"`}

// RetryAfter is how long to wait before the same may succeed: whole seconds,
// rounded up; 0 where waiting does not help.
func RetryAfter(err error) int {
	var wait time.Duration
	if e, ok := errors.AsType[*job.Error](err); ok {
		wait = e.RetryAfter
		if status := StatusOf(e.Code); wait <= 0 && (status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests) {
			wait = time.Second
		}
	}
	return int(math.Ceil(max(wait, 0).Seconds()))
}
