package client

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Error is why a call did not do what was asked: a refusal of the server, or no
// answer at all. Match on Code; codes are stable.
type Error struct {
	Status  int    // of the HTTP answer; 0 when there was none
	Code    string // "not_found"; see the constants
	Message string // a sentence for a person
	// Field is the part of the request that is wrong, as a JSON pointer
	// (RFC 6901), or "".
	Field string
	// RetryAfter is how long the server asked to wait before the same call may
	// succeed; 0 when it said nothing.
	RetryAfter time.Duration
	// Failure is why the job failed, where that is the reason for the refusal.
	Failure *Failure
	// Errors says of an atomic batch that was refused why each of the jobs to blame was,
	// up to the first 20; their Field says which.
	Errors []*Error
	Err    error // the cause, when no answer came; otherwise nil
}

// The codes that programs most often ask for. A server may send others.
const (
	CodeInvalid             = "invalid_request"      // the request is wrong and will stay wrong
	CodeNotFound            = "not_found"            // no such job, or not yours
	CodeUnknownQueue        = "unknown_queue"        // the server has no such queue
	CodeTooLarge            = "too_large"            // past a size limit
	CodeConflict            = "conflict"             // the job is in a state that forbids the call
	CodeNotFinished         = "not_finished"         // the job has no result yet
	CodeNotRetryable        = "not_retryable"        // only failed, cancelled and expired jobs can be retried
	CodeIdempotencyMismatch = "idempotency_mismatch" // the key was used before with another body
	CodeQueueFull           = "queue_full"           // the queue holds as many waiting jobs as it may
	CodeKeyFull             = "key_full"             // the key has as many waiting jobs as it may
	CodeOverloaded          = "overloaded"           // the server has as much to write as it may
	CodeUnavailable         = "unavailable"          // the server's store cannot be reached or written

	CodeUnreachable = "unreachable" // no answer came; made by this package
	CodeBadAnswer   = "bad_answer"  // an answer came that no Meanwhile server gives; made by this package
)

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Err }

// CodeOf is the code of the first [Error] in err's chain, "" when there is none.
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// problem is the body of a refusal (RFC 9457).
type problem struct {
	Title  string   `json:"title"`
	Detail string   `json:"detail"`
	Code   string   `json:"code"`
	Field  string   `json:"field"`
	Error  *Failure `json:"error"`
	// Of one of many.
	Status     int     `json:"status"`
	RetryAfter float64 `json:"retry_after_s"`
	// Of a refusal of many.
	Errors []problem `json:"errors"`
}

// refused is the problem as an error.
func (p *problem) toError() *Error {
	e := &Error{
		Status: p.Status, Code: p.Code, Message: cmp.Or(p.Detail, p.Title), Field: p.Field, Failure: p.Error,
		RetryAfter: retryDelay(p.RetryAfter),
	}
	for i := range p.Errors {
		e.Errors = append(e.Errors, p.Errors[i].toError())
	}
	return e
}

const maxProblem = 64 << 10 // bytes of a refusal's body that are read

// refusal reads the answer of a call that was refused. What is no problem document
// (a proxy in between, another program on that port) still becomes an Error.
func readRefusal(res *http.Response) *Error {
	e := &Error{Code: CodeBadAnswer, Message: fmt.Sprintf("the server answered %d %s without saying why; is the URL right?", res.StatusCode, http.StatusText(res.StatusCode))}
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	var p problem
	if json.Unmarshal(body, &p) == nil && p.Code != "" {
		e = p.toError()
	}
	e.Status, e.RetryAfter = res.StatusCode, retryAfter(res.Header)
	return e
}

// retryAfter reads the header in seconds; the form with a date is not used by the
// server and counts as nothing.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseFloat(h.Get("Retry-After"), 64)
	if err != nil {
		return 0
	}
	return retryDelay(seconds)
}

// bounded is a wait in seconds of at most a day.
func retryDelay(seconds float64) time.Duration {
	if !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, 86400) * float64(time.Second))
}
