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

// The error codes that only HTTP has.
const (
	MethodNotAllowed     job.Code = "method_not_allowed"     // another method; the response has Allow
	UnsupportedMediaType job.Code = "unsupported_media_type" // not the type of body that the call accepts
	RequestTimeout       job.Code = "request_timeout"        // the body took too long to arrive
	Aborted              job.Code = "request_aborted"        // the client left, or stopped sending, before the outcome was known
	CallerBusy           job.Code = "caller_busy"            // the caller has too many bodies in flight
	UpgradeRequired      job.Code = "upgrade_required"       // the call is a WebSocket, and this is no handshake
	KeyRequired          job.Code = "key_required"           // the server has keys, and the request has none
	BadKey               job.Code = "bad_key"                // an unknown, revoked or expired key
	ScopeMissing         job.Code = "scope_missing"          // the key lacks a scope
	KeyInURL             job.Code = "key_in_url"             // keys travel in the header Authorization only
	TooManyBadKeys       job.Code = "too_many_bad_keys"      // the address has sent too many wrong keys
)

// statusAborted is the status of [Aborted]. No standard has one; servers and proxies log 499 for
// a client that closed its request. Only a client that closed its sending side alone sees it.
const statusAborted = 499

// StatusOf returns the HTTP status of a code. No other table maps codes to statuses.
func StatusOf(code job.Code) int {
	switch code {
	case job.Invalid, job.UnknownKind, job.PastLimit, job.BadCallback, KeyInURL:
		return http.StatusBadRequest
	case job.BadToken, KeyRequired, BadKey:
		return http.StatusUnauthorized
	case job.Forbidden, ScopeMissing:
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
	case UpgradeRequired:
		return http.StatusUpgradeRequired
	case job.IdempotencyMismatch:
		return http.StatusUnprocessableEntity
	case Aborted:
		return statusAborted
	case job.KeyFull, job.OwnerFull, CallerBusy, TooManyBadKeys:
		return http.StatusTooManyRequests
	case job.ReceiverFailed:
		return http.StatusBadGateway
	case job.QueueFull, job.Overloaded, job.NoSpace, job.ShuttingDown, job.Unavailable, job.EncryptionKeyMissing:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// Problem is the JSON of an error: application/problem+json of RFC 9457, with a code for
// programs to match.
type Problem struct {
	Type   string       `json:"type"` // "about:blank": the code says more than a URI would
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Code   job.Code     `json:"code"`
	Field  string       `json:"field,omitempty"`  // a JSON pointer to the wrong value
	Error  *job.Failure `json:"error,omitempty"`  // why the job failed, where that caused the error
	Errors []ItemError  `json:"errors,omitempty"` // of a batch: its refused jobs
}

// ItemError is the JSON of one refused element of a batch.
type ItemError struct {
	Field  string   `json:"field"` // a JSON pointer to the element, or into it
	Status int      `json:"status"`
	Code   job.Code `json:"code"`
	Detail string   `json:"detail"`
}

// ItemErrorOf converts the error of one element.
func ItemErrorOf(err error) ItemError {
	p := ProblemOf(err)
	return ItemError{Field: p.Field, Status: p.Status, Code: p.Code, Detail: p.Detail}
}

// BatchError refuses a whole batch because of some of its elements. Its [Problem] is the
// first element's, with a list of more in errors.
type BatchError struct {
	First  error
	Errors []ItemError
}

func (e *BatchError) Error() string { return e.First.Error() }

// Unwrap returns the first element's error.
func (e *BatchError) Unwrap() error { return e.First }

// JobFailed refuses a request because of how a job ended. Its [Problem] includes the job's
// failure.
type JobFailed struct {
	Refusal *job.Error
	Failure *job.Failure
}

func (e *JobFailed) Error() string { return e.Refusal.Error() }

// Unwrap returns the refusal.
func (e *JobFailed) Unwrap() error { return e.Refusal }

// ProblemOf converts an error. An error that is not a *[job.Error] is a defect of the
// server, so the client learns nothing of it: it may contain secrets.
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
	if p.Title = http.StatusText(p.Status); p.Status == statusAborted {
		p.Title = "Client Closed Request"
	}
	return p
}

// WriteProblem is the [ErrorWriter] of the native API. It writes the [Problem] of an error.
func WriteProblem(w http.ResponseWriter, err error) {
	p := ProblemOf(err)
	WriteProblemAs(w, err, p.Status, p)
}

// WriteProblemAs writes a problem in a format of its own, such as one with more members
// than [Problem]. It sets Retry-After to [RetryAfter] of err where that is not 0.
func WriteProblemAs(w http.ResponseWriter, err error, status int, problem any) {
	if s := RetryAfter(err); s > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(s))
	}
	switch {
	case job.CodeOf(err) == KeyRequired:
		w.Header()["Www-Authenticate"] = keyChallenge
	case job.CodeOf(err) == ScopeMissing:
		w.Header()["Www-Authenticate"] = scopeChallenge
	case status == http.StatusUnauthorized:
		w.Header()["Www-Authenticate"] = bearerChallenge
	}
	body, jsonErr := json.Marshal(problem)
	if jsonErr != nil {
		panic(fmt.Errorf("api: a problem cannot be encoded as JSON: %w", jsonErr))
	}
	Write(w, status, problemType, body)
}

// The WWW-Authenticate headers (RFC 6750, section 3): of a request without a key, with one that is
// not valid, and with one that lacks a scope. They are never changed.
var (
	keyChallenge    = []string{"Bearer"}
	bearerChallenge = []string{`Bearer error="invalid_token"`}
	scopeChallenge  = []string{`Bearer error="insufficient_scope"`}
)

// RetryAfter returns how long to wait before the request may succeed: whole seconds,
// rounded up. It is the wait that the error names; else 1 for the statuses 429 and 503;
// else 0, because waiting does not help.
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
