package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// Finish ends the attempt and returns the new state of the job once it is on disk. It returns
// [job.LeaseLost] for a void lease, and the errors of [Engine.Append].
func (e *Engine) Finish(ctx context.Context, l job.Lease, o job.Outcome) (job.State, error) {
	local, err := e.findLease(ctx, l)
	if err != nil {
		return 0, err
	}
	if o.Fault != nil && !local.hasOutput && e.peers != nil {
		// The retry decision depends on whether the attempt has output, which may just have been
		// stored through another process.
		if err := e.catchUp(ctx, []job.Lease{l}); err != nil {
			return 0, err
		}
		if current, ok := e.findLocalLease(l); ok {
			local = current
		}
	}
	op, size, err := e.newFinish(&local, &o)
	if err != nil {
		return 0, err
	}
	if err := e.do(ctx, &pendingOp{lane: laneUrgent, bytes: size, op: op, fault: o.Fault}); err != nil {
		return 0, err
	}
	return op.State, op.Err
}

// FinishAsync is Finish without the wait, for a lease that this process handed out. It returns
// at once and calls then once, with the error. then runs on the caller's goroutine or on one
// that others wait for, so it must not block.
func (e *Engine) FinishAsync(l job.Lease, o job.Outcome, then func(error)) {
	local, ok := e.findLocalLease(l)
	if !ok {
		then(leaseLostError(l))
		return
	}
	op, size, err := e.newFinish(&local, &o)
	if err == nil {
		err = e.lanes.put(&pendingOp{lane: laneUrgent, bytes: size, op: op, fault: o.Fault, onAnswer: then})
	}
	if err != nil {
		then(err)
	}
}

// newFinish makes the op that ends an attempt, and returns its size in bytes.
func (e *Engine) newFinish(local *localLease, o *job.Outcome) (op *store.Finish, size int, err error) {
	if err := local.checkOutputLimit(entriesSize(o.Entries)); err != nil {
		return nil, 0, err
	}
	hasOutput := local.hasOutput
	for i := range o.Entries {
		hasOutput = hasOutput || o.Entries[i].Kind.IsOutput()
	}
	op = e.finishFor(&local.job, *o, hasOutput)
	op.Lease = job.Lease{Job: local.job.ID, Token: local.token}
	size = opBytes + int(entriesSize(o.Entries)) + len(o.Usage)
	if o.Result != nil {
		size += len(o.Result.Body)
	}
	return op, size, nil
}

// finishFor makes the op of an outcome: it decides whether the job ends, is retried or waits.
func (e *Engine) finishFor(j *job.Job, o job.Outcome, hasOutput bool) *store.Finish {
	op := &store.Finish{Entries: o.Entries, Progress: o.Progress, Usage: o.Usage}
	switch {
	case o.Released:
		op.To, op.Refund = job.Queued, true
	case o.Cancelled:
		op.To = job.Cancelled
	case o.Fault == nil:
		op.To, op.Result = job.Succeeded, o.Result
		// A worker completes the progress that it has reported. Many report none.
		if op.Progress == nil && j.Progress.Percent < 100 {
			op.Progress = &job.Progress{Percent: 100}
		}
	default:
		v := j.DecideRetry(o.Fault, hasOutput, e.store.Now(), rand.Float64())
		op.Failure = &job.Failure{Code: o.Fault.Code, Message: o.Fault.Message, Retryable: o.Fault.Class != job.Final, Attempt: j.Attempt}
		op.To = job.Failed
		if v.Waited {
			// Without it nobody sees why a job with attempts left is not tried again.
			op.Failure.Message = fmt.Sprintf("%s; another wait would be longer than retry.for_s allows (%v)", strings.TrimRight(op.Failure.Message, ". "), j.Policy.Retry.For)
		}
		if v.Retry {
			op.To, op.Delay, op.Refund = job.Scheduled, v.Delay, v.Refund
		}
		if v.Retry && v.Delay == 0 {
			op.To = job.Queued // no sweep has to make it ready
		}
	}
	return op
}

// lossFinish makes the op of a lost attempt, whose worker stopped or went silent.
func (e *Engine) lossFinish(j *job.Job, hasOutput bool) *store.Finish {
	op := &store.Finish{Lost: true, To: job.Failed}
	op.Failure = &job.Failure{
		Code: job.WorkerLost, Message: "the worker that ran the job stopped or went silent",
		Retryable: true, Attempt: j.Attempt,
	}
	if v := j.DecideRetryAfterLoss(hasOutput); v.Retry {
		op.To, op.Delay = job.Scheduled, v.Delay
	}
	return op
}

// bareFinish makes the op that replaces a finish with bad data. The job ends as failed, without
// any data that the store could refuse.
func bareFinish(op *store.Finish, attempt int) *store.Finish {
	return &store.Finish{
		Lease: op.Lease, OnlyIf: op.OnlyIf, Lost: op.Lost, To: job.Failed, SkipAtEnd: true,
		Failure: &job.Failure{Code: "result_refused", Message: "The end of the job could not be stored; the server's log has the details.", Attempt: attempt},
	}
}

// finished drops the lease, logs a failure, and sends the job's new state to watchers.
func (e *Engine) finished(op *store.Finish, swept bool, fault *job.Fault) {
	if op.Err != nil && swept {
		return // a renewal or a finish came before the sweep, so nothing was swept
	}
	var local *localLease
	if op.Err == nil || job.CodeOf(op.Err) == job.LeaseLost {
		local = e.dropLease(op.Lease) // after other refusals the worker may finish the attempt with another outcome
	}
	var ran time.Duration // 0 if the attempt ran in another process
	if local != nil {
		if swept {
			local.consumer.order(op.Lease, job.OrderLost)
		}
		ran = time.Since(local.startedAt)
		local.consumer.q.recordEnd(local.startedAt, ran, op.Err == nil && isTypical(local, op))
	}
	if op.Err != nil {
		return
	}
	j := op.Job
	e.observer.OutputStored(entriesSize(op.Entries))
	e.observer.AttemptEnded(j.Queue, endingOf(op, swept), ran)
	e.failures.report(op, j, fault)
	if op.State == job.Scheduled {
		e.sweeper.scheduleAt(j.RunAt)
	}
	e.hub.Publish(j.ID, watch.Event{Entries: op.Entries, Progress: op.Progress, Job: j, Result: inlineResult(j, op.Result)})
}

// isTypical reports whether an attempt says how long attempts of its queue take: it ended its job,
// and not by a clock that the submitter had set.
func isTypical(local *localLease, op *store.Finish) bool {
	switch op.State {
	case job.Succeeded:
		return true
	case job.Failed:
		own := local.job.Policy.Timeouts != local.consumer.q.Policy.Timeouts
		return !own || op.Failure == nil || !job.IsClock(op.Failure.Code)
	}
	return false
}

// inlineResult returns the result if it is small enough to be shown with its job, else nil.
func inlineResult(j *job.Job, r *job.Result) *job.Result {
	if j.State != job.Succeeded || r == nil || len(r.Body) > job.MaxInline {
		return nil
	}
	return r
}
