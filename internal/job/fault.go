package job

import (
	"errors"
	"fmt"
	"time"
)

// Class says what may follow a failed attempt.
type Class uint8

// The classes of failure.
const (
	Final     Class = iota // trying again would fail the same way
	Retryable              // may succeed later: costs an attempt, backs off
	Wait                   // told to wait, or nobody was there: costs no attempt, goes back until retry_for has passed
	Timeout                // reached its run time: final unless retry.on_timeout
)

// Fault is why an attempt failed, as its executor tells it. Anything else that an
// executor returns as an error counts as [Retryable] with the code "executor_error".
type Fault struct {
	Code    string // stable, for programs: "upstream_rate_limited"
	Message string // for the person whose job it is; says what to do where something can be done
	Class   Class
	// RetryAfter is how long the other side asked us to wait; zero when it did not.
	RetryAfter time.Duration
	Err        error
}

func (f *Fault) Error() string {
	if f.Err != nil {
		return f.Message + ": " + f.Err.Error()
	}
	return f.Message
}

func (f *Fault) Unwrap() error { return f.Err }

// FaultOf finds the fault in err's chain, or makes one of the class [Retryable].
func FaultOf(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return &Fault{Code: "executor_error", Message: err.Error(), Class: Retryable}
}

// RunTimeout is the fault of an attempt that reached a run time.
func RunTimeout(limit time.Duration) *Fault {
	return &Fault{
		Code:    "timeout",
		Message: fmt.Sprintf("The attempt ran for %g s, which is as long as it may; ask for less, or for a longer run timeout.", limit.Seconds()),
		Class:   Timeout,
	}
}

// FirstOutputTimeout is the fault of an attempt that has said nothing since it began.
func FirstOutputTimeout(limit time.Duration) *Fault {
	return outputTimeout("first_output_timeout", "Nothing was said within %g s of the start, so the attempt was stopped.", limit)
}

// IdleOutputTimeout is the fault of an attempt that has said something and then nothing more.
func IdleOutputTimeout(limit time.Duration) *Fault {
	return outputTimeout("idle_output_timeout", "Nothing more was said for %g s, so the attempt was stopped.", limit)
}

func outputTimeout(code, format string, limit time.Duration) *Fault {
	return &Fault{Code: code, Message: fmt.Sprintf(format, limit.Seconds()), Class: Retryable}
}

// Failure is a fault as a job keeps it: what its last failed attempt came to.
type Failure struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"` // whether another attempt could succeed
	Attempt   int    `json:"attempt"`   // which attempt failed
}
