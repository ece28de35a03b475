package fn

import (
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// failure is an error of a function that says what is to follow.
type failure struct {
	error
	fault *job.Fault
}

// Unwrap has the fault first: the outermost word counts.
func (f failure) Unwrap() []error { return []error{f.fault, f.error} }

// Final says that trying again would fail the same way.
func Final(err error) error {
	return with(err, func(f *job.Fault) { f.Class = job.Final })
}

// RetryAfter says that the work is to be tried again, no sooner than after d, and
// that this costs no attempt.
func RetryAfter(err error, d time.Duration) error {
	return with(err, func(f *job.Fault) { f.Class, f.RetryAfter = job.Wait, d })
}

// Coded gives the error a code, for programs.
func Coded(code string, err error) error {
	return with(err, func(f *job.Fault) { f.Code = code })
}

// whole is an error that says what follows, with the words of those who wrapped it.
func whole(err error) error {
	var said failure
	if !errors.As(err, &said) {
		return err
	}
	return with(err, func(*job.Fault) {})
}

// with is the error with a fault of its own, changed. Nil stays nil.
func with(err error, change func(*job.Fault)) error {
	if err == nil {
		return nil
	}
	fault := *job.FaultOf(err)
	fault.Message = err.Error()
	change(&fault)
	return failure{err, &fault}
}
