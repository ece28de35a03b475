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
	Invalid             Code = "invalid_request"      // a wrong request; do not repeat it
	PastLimit           Code = "past_limit"           // a submit past its queue's [Ceilings]
	NotFound            Code = "not_found"            // it does not exist, or belongs to another owner
	UnknownQueue        Code = "unknown_queue"        // the server has no such queue
	UnknownKind         Code = "unknown_kind"         // the queue has no such kind of jobs
	TooLarge            Code = "too_large"            // above a size limit
	Conflict            Code = "conflict"             // the current state forbids the call
	NotFinished         Code = "not_finished"         // the job has no result yet
	NotRetryable        Code = "not_retryable"        // the job is not failed, cancelled or expired
	IdempotencyMismatch Code = "idempotency_mismatch" // the key was used before with another body
	LeaseLost           Code = "lease_lost"           // the lease is not the job's current one
	QueueFull           Code = "queue_full"           // the queue is at its limit of jobs or bytes
	KeyFull             Code = "key_full"             // the key is at its limit of waiting jobs
	OwnerFull           Code = "owner_full"           // the user keeps as many bytes as one may
	BadCallback         Code = "bad_callback"         // a submit whose callback could not be delivered
	BatchRefused        Code = "batch_refused"        // another job of an atomic batch was refused
	Overloaded          Code = "overloaded"           // the server has too many pending writes
	NoSpace             Code = "no_space"             // the disk is full
	ShuttingDown        Code = "shutting_down"        // the server is stopping
	Unavailable         Code = "unavailable"          // the store cannot be reached or written
	Forbidden           Code = "forbidden"            // the caller may not do this
	BadToken            Code = "bad_token"            // an invalid or expired token
	ReceiverFailed      Code = "receiver_failed"      // a receiver of callbacks cannot be reached
	Internal            Code = "internal"             // a defect of the server
	// EncryptionKeyMissing is a value whose key this server does not have.
	EncryptionKeyMissing Code = "encryption_key_missing"
)

// Error is a refusal: a code for programs, a sentence for the caller, and a cause for the
// server's log. Anyone may see the message; only the log may contain the cause.
type Error struct {
	Code    Code
	Message string
	// RetryAfter is how long to wait before the same call may succeed; zero when waiting
	// does not help or the time is unknown.
	RetryAfter time.Duration
	// Field is the wrong part of the request, as a JSON pointer (RFC 6901), or "".
	Field string
	Err   error // the cause, or nil
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

// Errorf makes an [Error] without a cause.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrapf makes an [Error] with a cause. The cause is logged and never shown.
func Wrapf(code Code, cause error, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Err: cause}
}

// CodeOf returns the code of the first [Error] in err's chain: "" when err is nil, [Internal]
// when the chain has no Error.
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
