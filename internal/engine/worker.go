package engine

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// holding is the lease that a worker says it holds, as it is now. One that this process
// did not hand out is asked for in the store, which has the last word anyway.
func (e *Engine) findLease(ctx context.Context, l job.Lease) (localLease, error) {
	if local, ok := e.findLocalLease(l); ok {
		return local, nil
	}
	list, err := e.store.Leases(ctx, []job.Lease{l})
	if err != nil {
		return localLease{}, err
	}
	if r := &list[0]; r.Token == l.Token && !l.Token.IsZero() {
		return localLease{job: r.Job, token: r.Token, earlierBytes: r.Before, hasOutput: r.HasOutput}, nil
	}
	return localLease{}, leaseLostError(l)
}

func leaseLostError(l job.Lease) error {
	return job.Errorf(job.LeaseLost, "the lease on %s is not held any more", l.Job)
}

// holdsHere is a lease that a worker of this process holds.
func (e *Engine) findLocalLease(l job.Lease) (localLease, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	local := e.leases[l.Job]
	if local == nil || local.token != l.Token {
		return localLease{}, false
	}
	return *local, true
}

// Append stores output of a leased job and returns when it is on disk. Refusals:
// [job.LeaseLost], and [job.TooLarge] past the bound of an attempt's output, or of a job's.
func (e *Engine) Append(ctx context.Context, l job.Lease, entries []job.Entry, p *job.Progress) error {
	size := entriesSize(entries)
	if err := e.checkAppend(ctx, l, size); err != nil {
		return err
	}
	op := &store.Append{Lease: l, Entries: entries, Progress: p}
	if err := e.do(ctx, &pendingOp{lane: laneOutput, bytes: opBytes + int(size), op: op}); err != nil {
		return err
	}
	return op.Err
}

// checkAppend refuses an append whose lease is lost, or that would pass a bound. A lease of
// this process is checked where it is: a copy of its job would double the stack of every
// running job.
func (e *Engine) checkAppend(ctx context.Context, l job.Lease, size int64) error {
	e.mu.Lock()
	if local := e.leases[l.Job]; local != nil && local.token == l.Token {
		defer e.mu.Unlock()
		return local.checkOutputLimit(size)
	}
	e.mu.Unlock()
	return e.checkAppendElsewhere(ctx, l, size)
}

// checkAppendElsewhere is checkAppend for a lease that another process handed out.
//
//go:noinline
func (e *Engine) checkAppendElsewhere(ctx context.Context, l job.Lease, size int64) error {
	local, err := e.findLease(ctx, l)
	if err != nil {
		return err
	}
	return local.checkOutputLimit(size)
}

func entriesSize(entries []job.Entry) (size int64) {
	for i := range entries {
		size += int64(len(entries[i].Data))
	}
	return size
}

// maySay refuses what would pass the bound of an attempt's output, or of a job's.
func (local *localLease) checkOutputLimit(size int64) error {
	switch said := local.job.OutputBytes + size; {
	case size == 0:
	case said-local.earlierBytes > job.MaxOutput:
		return job.Errorf(job.TooLarge, "the attempt has said more than %d MiB", job.MaxOutput>>20)
	case said > job.MaxJobOutput:
		return job.Errorf(job.TooLarge, "the job has said more than %d MiB", job.MaxJobOutput>>20)
	}
	return nil
}

// appended tells watchers of committed output.
func (e *Engine) appended(op *store.Append) {
	if op.Err != nil {
		return
	}
	e.mu.Lock()
	if local := e.leases[op.Lease.Job]; local != nil && local.token == op.Lease.Token {
		local.recordOutput(op.Entries, op.Progress)
	}
	e.mu.Unlock()
	e.observer.OutputStored(entriesSize(op.Entries))
	e.hub.Publish(op.Lease.Job, watch.Event{Entries: op.Entries, Progress: op.Progress})
}

// said notes what the attempt has said. What is noted already, because the append was made
// again or the store was asked meanwhile, does not count twice. The engine's mu is held.
func (local *localLease) recordOutput(entries []job.Entry, p *job.Progress) {
	if p != nil {
		local.job.Progress = *p
	}
	for i := range entries {
		if entries[i].Seq <= local.job.Cursor {
			continue
		}
		local.job.Cursor = entries[i].Seq
		local.job.OutputBytes += int64(len(entries[i].Data))
		local.hasOutput = local.hasOutput || entries[i].Kind.IsOutput()
	}
}

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
		v := j.DecideRetry(o.Fault, spoke, e.store.Now(), die())
		op.Failure = &job.Failure{Code: o.Fault.Code, Message: o.Fault.Message, Retryable: o.Fault.Class != job.Final, Attempt: j.Attempt}
		op.To = job.Failed
		if v.Retry {
			op.To, op.Delay, op.Refund = job.Scheduled, v.Delay, v.Refund
		}
	}
	return op
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

// orderCancel orders a worker to stop that learns of a cancel by the answer to a write: the
// cancel itself may have been asked for elsewhere. It does not depend on whether anybody
// still waits for that answer.
func (e *Engine) orderCancel(l job.Lease, requested bool) {
	if requested {
		e.order(l, job.OrderCancel)
	}
}

// refusedLease lets go of a lease that the store refused a write of: it is void, and its
// worker may never come to finish it.
func (e *Engine) dropIfLost(l job.Lease, err error) {
	if job.CodeOf(err) == job.LeaseLost {
		e.leaseLost(l)
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// order tells the worker that holds a lease what to do.
func (e *Engine) order(l job.Lease, o job.Order) {
	e.mu.Lock()
	local := e.leases[l.Job]
	var to *consumer
	if local != nil && local.token == l.Token {
		to = local.consumer
	}
	e.mu.Unlock()
	if to != nil {
		to.order(l, o)
	}
}
