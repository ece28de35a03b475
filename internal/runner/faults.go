package runner

import (
	"errors"
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// fault returns the fault of an attempt whose clock has expired.
func (c *clocks) fault(which clock) *job.Fault {
	switch which {
	case firstOutput:
		return job.FirstOutputTimeout(c.limits.FirstOutput)
	case idleOutput:
		return job.IdleOutputTimeout(c.limits.IdleOutput)
	case runSoft:
		return job.RunTimeout(c.limits.RunSoft)
	default:
		return job.RunTimeout(c.limits.RunHard)
	}
}

func outputTooLarge() *job.Fault {
	return &job.Fault{
		Code:    "output_too_large",
		Message: fmt.Sprintf("The job has more output than is stored: %d MiB of one attempt, %d MiB of all attempts together; ask for less.", job.MaxOutput>>20, job.MaxJobOutput>>20),
		Class:   job.Final,
	}
}

func resultTooLarge(size int) *job.Fault {
	return &job.Fault{
		Code:    "result_too_large",
		Message: fmt.Sprintf("The result has %d bytes and a result may have %d MiB; ask for less.", size, job.MaxResult>>20),
		Class:   job.Final,
	}
}

// refusedOutput is the fault for output that the store refuses.
func refusedOutput(err error) *job.Fault {
	if job.CodeOf(err) == job.TooLarge {
		return outputTooLarge()
	}
	return &job.Fault{
		Code:    "output_refused",
		Message: "The job's output could not be stored; the server's log has the details.",
		Class:   job.Final,
		Err:     err,
	}
}

// refusedEnd is the fault for an outcome that the store refuses.
func refusedEnd(err error) *job.Fault {
	return &job.Fault{
		Code:    "result_refused",
		Message: "The job's outcome could not be stored; the server's log has the details.",
		Class:   job.Final,
		Err:     err,
	}
}

func panicked() *job.Fault {
	return &job.Fault{
		Code:    "panic",
		Message: "The executor panicked, which is a defect; the server's log has the details.",
		Class:   job.Retryable,
	}
}

// unreadable is the fault of an attempt whose input could not be decrypted: another process may have
// the key, or somebody may add it.
func unreadable(err error) *job.Fault {
	f := &job.Fault{Code: string(job.CodeOf(err)), Class: job.Retryable, Message: "The input of the job cannot be read.", Err: err}
	var known *job.Error
	if errors.As(err, &known) {
		f.Message = "The input of the job cannot be read: " + known.Message + ". A retry runs it again."
	}
	return f
}

// errGoexit is the fault of an executor that ended its goroutine.
var errGoexit error = &job.Fault{
	Code:    "panic",
	Message: "The executor ended its goroutine with runtime.Goexit, which is a defect.",
	Class:   job.Retryable,
}
