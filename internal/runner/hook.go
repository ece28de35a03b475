package runner

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// AttemptHook is called when an attempt starts, and must return quickly. The executor runs with
// the returned context, which must derive from ctx. trace is the traceparent (W3C Trace Context)
// that the executor gets as [job.Job.Trace] and passes on to the systems that it calls. onEnd is
// called once when the attempt is over: with its outcome, or with nil if its lease was lost.
type AttemptHook func(ctx context.Context, j *job.Job) (_ context.Context, trace string, onEnd func(*job.Outcome))

// callHookLocked calls the hook, if there is one, and returns the parent of the executor's
// context.
func (a *attempt) callHookLocked() context.Context {
	a.trace = a.claimed.Job.Trace
	if a.r.cfg.OnAttempt == nil {
		return a.r.rootCtx
	}
	var ctx context.Context
	ctx, a.trace, a.onEnd = a.r.cfg.OnAttempt(a.r.rootCtx, &a.claimed.Job)
	return ctx
}
