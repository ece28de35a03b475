package engine

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// Finish ends the attempt and returns when that is on disk, with the state that
// the job went to. Refusals: [job.LeaseLost], and those of Append.
func (e *Engine) Finish(ctx context.Context, l job.Lease, o job.Outcome) (job.State, error) {
	local, err := e.findLease(ctx, l)
	if err != nil {
		return 0, err
	}
	if o.Fault != nil && !local.hasOutput && e.peers != nil {
		// What was said through another process a moment ago may decide what follows.
		if err := e.catchUp(ctx, []job.Lease{l}); err != nil {
			return 0, err
		}
		if now, ok := e.findLocalLease(l); ok {
			local = now
		}
	}
	op, size, err := e.newFinish(&local, &o)
	if err != nil {
		return 0, err
	}
	if err := e.do(ctx, &pendingOp{lane: laneUrgent, bytes: size, op: op}); err != nil {
		return 0, err
	}
	return op.State, op.Err
}

// FinishAsync is Finish without the wait, for a lease that this process handed out: it returns
// at once, and then is called with the error once there is an answer. It is called by a
// goroutine that everyone waits for, or by the caller's: it never blocks.
func (e *Engine) FinishAsync(l job.Lease, o job.Outcome, then func(error)) {
	local, ok := e.findLocalLease(l)
	if !ok {
		then(leaseLostError(l))
		return
	}
	op, size, err := e.newFinish(&local, &o)
	if err == nil {
		err = e.lanes.put(&pendingOp{lane: laneUrgent, bytes: size, op: op, onAnswer: then})
	}
	if err != nil {
		then(err)
	}
}

// finish makes the op that ends an attempt, and says how many bytes it is.
func (e *Engine) newFinish(local *localLease, o *job.Outcome) (op *store.Finish, size int, err error) {
	if err := local.checkOutputLimit(entriesSize(o.Entries)); err != nil {
		return nil, 0, err
	}
	spoke := local.hasOutput
	for i := range o.Entries {
		spoke = spoke || o.Entries[i].Kind.IsOutput()
	}
	op = e.finishFor(&local.job, *o, spoke)
	op.Lease = job.Lease{Job: local.job.ID, Token: local.token}
	size = opBytes + int(entriesSize(o.Entries)) + len(o.Usage)
	if o.Result != nil {
		size += len(o.Result.Body)
	}
	return op, size, nil
}

// ending decides what follows from an attempt that is over.
func (e *Engine) finishFor(j *job.Job, o job.Outcome, spoke bool) *store.Finish {
	op := &store.Finish{Entries: o.Entries, Progress: o.Progress, Usage: o.Usage}
	switch {
	case o.Released:
		op.To, op.Refund = job.Queued, true
	case o.Cancelled:
		op.To = job.Cancelled
	case o.Fault == nil:
		op.To, op.Result = job.Succeeded, o.Result
	default:
		v := j.DecideRetry(o.Fault, spoke, e.store.Now(), rand.Float64())
		op.Failure = &job.Failure{Code: o.Fault.Code, Message: o.Fault.Message, Retryable: o.Fault.Class != job.Final, Attempt: j.Attempt}
		op.To = job.Failed
		if v.Retry {
			op.To, op.Delay, op.Refund = job.Scheduled, v.Delay, v.Refund
		}
	}
	return op
}

// loss decides what follows from an attempt whose worker was lost.
func (e *Engine) lossFinish(j *job.Job, spoke bool) *store.Finish {
	op := &store.Finish{Lost: true, To: job.Failed}
	op.Failure = &job.Failure{
		Code: job.WorkerLost, Message: "the worker that ran the job stopped or went silent",
		Retryable: true, Attempt: j.Attempt,
	}
	if v := j.DecideRetryAfterLoss(spoke); v.Retry {
		op.To, op.Delay = job.Scheduled, v.Delay
	}
	return op
}

// bare is the end of an attempt whose end was refused: the job ends as failed, with
// nothing that the store might not take.
func bareFinish(op *store.Finish, attempt int) *store.Finish {
	return &store.Finish{
		Lease: op.Lease, OnlyIf: op.OnlyIf, Lost: op.Lost, To: job.Failed, SkipAtEnd: true,
		Failure: &job.Failure{Code: "result_refused", Message: "The end of the job could not be stored; the server's log has the details.", Attempt: attempt},
	}
}

// finished lets go of a lease and tells watchers what became of the job.
func (e *Engine) finished(op *store.Finish, taken bool) {
	if op.Err != nil && taken {
		return // it was renewed, or finished, before the sweep came: nothing was taken
	}
	var local *localLease
	if op.Err == nil || job.CodeOf(op.Err) == job.LeaseLost {
		local = e.dropLease(op.Lease) // after another refusal its worker may finish it otherwise
	}
	var ran time.Duration
	if local != nil {
		if taken {
			local.consumer.order(op.Lease, job.OrderLost)
		}
		ran = time.Since(local.startedAt)
		local.consumer.q.recordEnd(local.startedAt, ran, op.Err == nil && (op.State == job.Succeeded || op.State == job.Failed))
	}
	if op.Err != nil {
		return
	}
	j := op.Job
	e.observer.OutputStored(entriesSize(op.Entries))
	e.observer.AttemptEnded(j.Queue, endingOf(op, taken), ran)
	if op.State == job.Scheduled {
		e.sweeper.scheduleAt(j.RunAt)
	}
	e.hub.Publish(j.ID, watch.Event{Entries: op.Entries, Progress: op.Progress, Job: j, Result: inlineResult(j, op.Result)})
}

// inline is a result that is small enough to be shown with its job.
func inlineResult(j *job.Job, r *job.Result) *job.Result {
	if j.State != job.Succeeded || r == nil || len(r.Body) > job.MaxInline {
		return nil
	}
	return r
}
