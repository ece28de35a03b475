package runner

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// AttemptHook is told of an attempt that begins. It is quick. The context that it returns
// is the executor's, made from the given one; trace is the traceparent (W3C Trace
// Context) that the executor sees as [job.Job.Trace], for those whom it calls in turn.
// ended is called once, when the attempt is over: with what it came to, or with nil
// when its lease was lost.
type AttemptHook func(ctx context.Context, j *job.Job) (_ context.Context, trace string, ended func(*job.Outcome))

// followLocked has someone follow the attempt, if anyone wants to, and returns what
// the executor's context is made from.
func (a *attempt) followLocked() context.Context {
	a.trace = a.claimed.Job.Trace
	if a.r.cfg.OnAttempt == nil {
		return a.r.values
	}
	var ctx context.Context
	ctx, a.trace, a.ended = a.r.cfg.OnAttempt(a.r.values, &a.claimed.Job)
	return ctx
}

// tell tells who follows the attempt that it is over.
func (a *attempt) tell(o *job.Outcome) {
	a.mu.Lock()
	ended := a.ended
	a.mu.Unlock()
	if ended != nil {
		ended(o)
	}
}
