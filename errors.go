package meanwhile

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/fn"
)

// Why the context of an attempt ended, as [context.Cause] tells it.
var (
	ErrCancelled = exec.ErrCancelled // someone asked for it
	ErrTimeout   = exec.ErrTimeout   // it ran, or was silent, for as long as it may
	ErrStopping  = exec.ErrStopping  // the server stops; the job is handed back and costs no attempt
	ErrLost      = exec.ErrLost      // the job is not this attempt's any more
)

// Final makes an error of a function one after which the job is not tried again.
// Final(nil) is nil, as with the two others. All of them may wrap one another, and be
// wrapped.
func Final(err error) error { return fn.Final(err) }

// RetryAfter makes an error of a function one after which the job is tried again no
// sooner than after d. That costs no attempt: the job goes on being put off until
// [RetryFor] has passed.
func RetryAfter(err error, d time.Duration) error { return fn.RetryAfter(err, d) }

// WithCode returns err with a stable code, which programs read as error.code of the job.
// Without WithCode the code is "executor_error". WithCode(nil, code) is nil.
func WithCode(err error, code string) error { return fn.Coded(code, err) }
