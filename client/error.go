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

// Error is a failed call: the server refused it, or no valid answer came. Compare Code:
// codes are stable, messages are not.
type Error struct {
	Status  int    // HTTP status of the answer; 0 when no answer came
	Code    string // such as "not_found"; see the Code constants
	Message string // a sentence for people
	// Field is the wrong part of the request, as a JSON pointer (RFC 6901); "" when the
	// error concerns no single field.
	Field string
	// RetryAfter is how long the server asked to wait before another try, at most 24
	// hours; 0 when it did not ask.
	RetryAfter time.Duration
	// Failure is the failure of the job, when the call was refused because the job
	// failed; nil otherwise.
	Failure *Failure
	// Errors lists the first 20 refused jobs of an atomic batch. Field of each names the
	// job. It is nil for other calls.
	Errors []*Error
	Err    error // the cause, when no answer came; otherwise nil
}

// The error codes that programs check most often. A server may send others.
const (
	CodeInvalid             = "invalid_request"      // the request is wrong and will stay wrong
	CodeNotFound            = "not_found"            // the job does not exist or belongs to another user
	CodeUnknownQueue        = "unknown_queue"        // the server has no such queue
	CodeBadCallback         = "bad_callback"         // the callback of a submission could not be delivered
	CodeReceiverFailed      = "receiver_failed"      // the receiver of a test callback cannot be reached
	CodeUnknownKind         = "unknown_kind"         // the queue has kinds, and metadata.kind names none of them
	CodeTooLarge            = "too_large"            // the request exceeds a size limit
	CodeConflict            = "conflict"             // the job's status does not allow the call
	CodeNotFinished         = "not_finished"         // the job has no result yet
	CodeNotRetryable        = "not_retryable"        // only failed, cancelled and expired jobs can be retried
	CodeIdempotencyMismatch = "idempotency_mismatch" // the key was used before with different content
	CodeQueueFull           = "queue_full"           // the queue has its maximum of waiting jobs or bytes
	CodeOwnerFull           = "owner_full"           // the user stores as much as one user may
	CodeKeyFull             = "key_full"             // the key has its maximum of waiting jobs
	CodeCallerBusy          = "caller_busy"          // the caller sends too many bodies at once
	CodeOverloaded          = "overloaded"           // the server has too much to do now
	CodeUnavailable         = "unavailable"          // the server cannot reach or write its store
	CodeUnsupported         = "unsupported"          // the store of the server cannot do it; no answer over HTTP has this code

	CodeUnreachable = "unreachable" // no answer came; set by this package
	CodeBadAnswer   = "bad_answer"  // the answer is not from a Meanwhile server; set by this package
)

// Error returns the message, followed by the cause if Err is set.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first [Error] in err's chain; "" when it holds no
// [Error].
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// problem is the body of a refusal: a problem document (RFC 9457).
type problem struct {
	Title  string   `json:"title"`
	Detail string   `json:"detail"`
	Code   string   `json:"code"`
	Field  string   `json:"field"`
	Error  *Failure `json:"error"`
	// set in an item of a batch
	Status     int     `json:"status"`
	RetryAfter float64 `json:"retry_after_s"`
	// set in the refusal of an atomic batch
	Errors []problem `json:"errors"`
}

// toError converts the problem document to an Error.
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

const maxProblem = 64 << 10 // how many bytes of a refusal's body are read

// readRefusal converts an answer with an error status to an Error. It also does so for
// an answer without a problem document, from a proxy or another program on that port.
func readRefusal(res *http.Response) *Error {
	e := &Error{Code: CodeBadAnswer, Message: fmt.Sprintf("the server answered %d %s without saying why; is the URL right?", res.StatusCode, http.StatusText(res.StatusCode))}
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	var p problem
	if json.Unmarshal(body, &p) == nil && p.Code != "" {
		e = p.toError()
	}
	// The status line and the header are authoritative. Only an item of a batch has its
	// status in the body.
	e.Status, e.RetryAfter = res.StatusCode, retryAfter(res.Header)
	return e
}

// retryAfter reads the header Retry-After in seconds. It returns 0 for the form with a
// date, which the server does not use.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseFloat(h.Get("Retry-After"), 64)
	if err != nil {
		return 0
	}
	return retryDelay(seconds)
}

// retryDelay converts seconds to a duration of at most a day. It returns 0 for negative
// numbers and for NaN.
func retryDelay(seconds float64) time.Duration {
	if !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, 86400) * float64(time.Second))
}
