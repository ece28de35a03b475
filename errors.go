package meanwhile

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/fn"
)

// The causes of a cancelled attempt. [context.Cause] of its context returns one of them.
var (
	ErrCancelled = exec.ErrCancelled // a client cancelled the job
	ErrTimeout   = exec.ErrTimeout   // the attempt ran, or wrote no output, longer than its timeout
	ErrStopping  = exec.ErrStopping  // the server stops; the job runs again later and this attempt does not count
	ErrLost      = exec.ErrLost      // the job was given to another attempt
)

// Final marks err as final: the job fails and is not retried. Final(nil) is nil. Final,
// [RetryAfter] and [WithCode] may wrap each other, and their results may be wrapped.
func Final(err error) error { return fn.Final(err) }

// RetryAfter asks for a retry of the job after at least d. The attempt does not count
// towards [MaxAttempts]; [RetryFor] limits how long a job may be delayed in this way.
// RetryAfter(nil, d) is nil.
func RetryAfter(err error, d time.Duration) error { return fn.RetryAfter(err, d) }

// WithCode returns err with a stable code, which programs read as error.code of the job.
// Without WithCode the code is "executor_error". WithCode(nil, code) is nil.
func WithCode(err error, code string) error { return fn.Coded(code, err) }
