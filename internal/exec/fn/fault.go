package fn

import (
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// faultError is an error with a fault, which sets the class and the code of the attempt's
// failure.
type faultError struct {
	error
	fault *job.Fault
}

// Unwrap lists the fault first, so that [errors.As] finds the outermost fault.
func (f faultError) Unwrap() []error { return []error{f.fault, f.error} }

// Final marks an error as final: another attempt would fail the same way. It returns nil for a
// nil error.
func Final(err error) error {
	return withFault(err, func(f *job.Fault) { f.Class = job.Final })
}

// RetryAfter makes the job wait at least d before its next attempt. The failed attempt is not
// counted. It returns nil for a nil error.
func RetryAfter(err error, d time.Duration) error {
	return withFault(err, func(f *job.Fault) { f.Class, f.RetryAfter = job.Wait, d })
}

// Coded gives the error a code, for programs. It returns nil for a nil error.
func Coded(code string, err error) error {
	return withFault(err, func(f *job.Fault) { f.Code = code })
}

// withFullMessage returns err with its whole text as the fault's message, including the text of
// errors that wrap the faultError. It returns err unchanged if it contains no faultError.
func withFullMessage(err error) error {
	var wrapped faultError
	if !errors.As(err, &wrapped) {
		return err
	}
	return withFault(err, func(*job.Fault) {})
}

// withFault returns err with a changed copy of its fault; nil stays nil.
func withFault(err error, change func(*job.Fault)) error {
	if err == nil {
		return nil
	}
	fault := *job.FaultOf(err)
	fault.Message = err.Error()
	change(&fault)
	return faultError{err, &fault}
}
