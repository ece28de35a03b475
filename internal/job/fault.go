package job

import (
	"errors"
	"fmt"
	"time"
)

// Class tells whether a failed attempt may be tried again.
type Class uint8

// The classes of failure.
const (
	Final     Class = iota // another attempt would fail in the same way
	Retryable              // another attempt may succeed: a failure with a backoff
	Wait                   // the upstream asked to wait or is unreachable: no failure, retried until retry_for
	Timeout                // the attempt reached its run timeout: final unless retry.on_timeout
)

// Fault is why an attempt failed, as its executor reports it. Any other error of an executor
// counts as [Retryable] with the code "executor_error".
type Fault struct {
	Code    string // stable, for programs: "upstream_rate_limited"
	Message string // for the owner of the job, with advice where the owner can act
	Class   Class
	// RetryAfter is the wait that the upstream asked for; zero when it did not ask.
	RetryAfter time.Duration
	// ServedAgo is how long ago the upstream served another job, without the time in which it was
	// not asked because it had asked to wait; 0 if it served none, or that is unknown. While it
	// serves others, a [Wait] is their line, and is not charged to the job.
	ServedAgo time.Duration
	Err       error
}

func (f *Fault) Error() string {
	if f.Err != nil {
		return f.Message + ": " + f.Err.Error()
	}
	return f.Message
}

func (f *Fault) Unwrap() error { return f.Err }

// FaultOf returns the first fault in err's chain, or makes one of the class [Retryable].
func FaultOf(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return &Fault{Code: "executor_error", Message: err.Error(), Class: Retryable}
}

// The codes of attempts that a clock has ended.
const (
	codeTimeout     = "timeout"
	codeFirstOutput = "first_output_timeout"
	codeIdleOutput  = "idle_output_timeout"
	codeRequest     = "upstream_timeout"
)

// IsClock reports whether a failure's code is that of an attempt that a clock has ended.
func IsClock(code string) bool {
	return code == codeTimeout || code == codeFirstOutput || code == codeIdleOutput || code == codeRequest
}

// RunTimeout makes the fault of an attempt that reached its run timeout.
func RunTimeout(limit time.Duration) *Fault {
	return &Fault{
		Code:    codeTimeout,
		Message: fmt.Sprintf("The attempt ran for %g s, the limit of its run timeout; ask for less, or for a longer run timeout.", limit.Seconds()),
		Class:   Timeout,
	}
}

// FirstOutputTimeout makes the fault of an attempt that has written no output since it began.
func FirstOutputTimeout(limit time.Duration) *Fault {
	return outputTimeout(codeFirstOutput, "The attempt wrote no output within %g s of its start and was stopped.", limit)
}

// IdleOutputTimeout makes the fault of an attempt whose output has stopped.
func IdleOutputTimeout(limit time.Duration) *Fault {
	return outputTimeout(codeIdleOutput, "The attempt wrote no more output for %g s and was stopped.", limit)
}

func outputTimeout(code, format string, limit time.Duration) *Fault {
	return &Fault{Code: code, Message: fmt.Sprintf(format, limit.Seconds()), Class: Retryable}
}

// Failure is the fault of a job's last failed attempt, as the job keeps it.
type Failure struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"` // whether another attempt could succeed
	Attempt   int    `json:"attempt"`   // which attempt failed
}
