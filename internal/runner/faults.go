package runner

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// fault is what an attempt fails of when the clock has run out.
func (c *clocks) fault(which clock) *job.Fault {
	switch which {
	case firstOutput:
		return silence("first_output_timeout", "Nothing was said within %g s of the start, so the attempt was stopped.", c.limits.FirstOutput)
	case idleOutput:
		return silence("idle_output_timeout", "Nothing more was said for %g s, so the attempt was stopped.", c.limits.IdleOutput)
	case runSoft:
		return tooLong(c.limits.RunSoft)
	default:
		return tooLong(c.limits.RunHard)
	}
}

func silence(code, format string, d time.Duration) *job.Fault {
	return &job.Fault{Code: code, Message: fmt.Sprintf(format, d.Seconds()), Class: job.Later}
}

func tooLong(d time.Duration) *job.Fault {
	return &job.Fault{
		Code:    "timeout",
		Message: fmt.Sprintf("The attempt ran for %g s, which is as long as it may; ask for less, or for a longer run timeout.", d.Seconds()),
		Class:   job.Timeout,
	}
}

func outputTooLarge() *job.Fault {
	return &job.Fault{
		Code:    "output_too_large",
		Message: fmt.Sprintf("The job said more than is kept of it: %d MiB of one attempt, %d MiB of all together; ask for less.", job.MaxOutput>>20, job.MaxJobOutput>>20),
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

// refusedOutput is for output that the store will never take.
func refusedOutput(err error) *job.Fault {
	if job.CodeOf(err) == job.TooLarge {
		return outputTooLarge()
	}
	return &job.Fault{
		Code:    "output_refused",
		Message: "What the job said could not be stored; the server's log has the details.",
		Class:   job.Final,
		Err:     err,
	}
}

// refusedEnd is for a result that the store will never take.
func refusedEnd(err error) *job.Fault {
	return &job.Fault{
		Code:    "result_refused",
		Message: "What the job came to could not be stored; the server's log has the details.",
		Class:   job.Final,
		Err:     err,
	}
}

func panicked() *job.Fault {
	return &job.Fault{
		Code:    "panic",
		Message: "The executor failed on a defect of its own; the server's log has the details.",
		Class:   job.Later,
	}
}
