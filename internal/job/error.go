package job

import (
	"errors"
	"fmt"
	"time"
)

// Code names why a call was refused. Codes are stable: programs match on them.
type Code string

// The reasons a call is refused.
const (
	Invalid             Code = "invalid_request"      // the request is wrong and will stay wrong
	NotFound            Code = "not_found"            // no such thing, or not yours
	UnknownQueue        Code = "unknown_queue"        // the server has no such queue
	TooLarge            Code = "too_large"            // past a size limit
	Conflict            Code = "conflict"             // the thing is in a state that forbids the call
	NotFinished         Code = "not_finished"         // the job has no result yet
	NotRetryable        Code = "not_retryable"        // only failed, cancelled and expired jobs can be retried
	IdempotencyMismatch Code = "idempotency_mismatch" // the key was used before with another body
	LeaseLost           Code = "lease_lost"           // the worker no longer holds the job
	QueueFull           Code = "queue_full"           // the queue holds as many waiting jobs, or bytes, as it may
	KeyFull             Code = "key_full"             // the key has as many waiting jobs as it may
	BatchRefused        Code = "batch_refused"        // another job of an atomic batch was refused
	Overloaded          Code = "overloaded"           // the server has as much to write as it may
	NoSpace             Code = "no_space"             // the disk is full
	ShuttingDown        Code = "shutting_down"        // the server is stopping
	Unavailable         Code = "unavailable"          // the store cannot be reached or written
	Forbidden           Code = "forbidden"            // the caller may not do this
	BadToken            Code = "bad_token"            // the token is not ours, was altered, has expired, or is for something else
	Internal            Code = "internal"             // a defect of ours
)

// Error is a refusal: a code for programs, a sentence for people, and a cause for
// whoever runs the server. The message may be shown to anyone; the cause may not.
type Error struct {
	Code    Code
	Message string
	// RetryAfter is how long to wait before the same call may succeed; zero when
	// waiting does not help or nobody knows.
	RetryAfter time.Duration
	// Field is the part of the request that is wrong, as a JSON pointer
	// (RFC 6901), or ''.
	Field string
	Err   error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, &Error{Code: c}) true for any error of that code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == ""
}

// Errorf makes a refusal without a cause.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrapf makes a refusal with a cause that is logged and not shown.
func Wrapf(code Code, cause error, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Err: cause}
}

// CodeOf is the code of the first [Error] in err's chain; [Internal] when there is
// none, "" when err is nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}
