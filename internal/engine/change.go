package engine

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// Cancel requests the end of a job; see [store.Cancel]. It returns an ended job unchanged. A job
// that does not exist, or belongs to another owner, is [job.NotFound].
func (e *Engine) Cancel(ctx context.Context, owner job.Owner, id job.ID) (Snapshot, error) {
	j, err := e.store.Job(ctx, owner, id)
	if err != nil { // no commit for a job that does not exist
		return Snapshot{}, err
	}
	op := &store.Cancel{Owner: j.Owner, ID: id}
	if err := e.doUrgent(ctx, op); err != nil {
		return Snapshot{}, err
	}
	if op.Err != nil {
		return Snapshot{}, op.Err
	}
	return e.snapshotAfter(ctx, &op.Job), nil
}

// doUrgent calls do for an op of the urgent lane that adds no data.
func (e *Engine) doUrgent(ctx context.Context, op any) error {
	return e.do(ctx, &pendingOp{lane: laneUrgent, bytes: opBytes, op: op})
}

// cancelled sends the worker of a running job a cancel order, and notifies watchers.
func (e *Engine) cancelled(op *store.Cancel) {
	switch {
	case op.Err != nil:
	case op.Ended:
		e.publish(&op.Job)
	case op.Job.State == job.Running:
		e.cancelRunning(op.ID, op.Job.CancelRequestedAt)
		e.publish(&op.Job)
	}
}

// cancelRunning sends a cancel order to the worker that runs a job in this process.
func (e *Engine) cancelRunning(id job.ID, requestedAt time.Time) {
	e.mu.Lock()
	local := e.leases[id]
	var lease job.Lease
	if local != nil {
		local.job.CancelRequestedAt = requestedAt
		lease = job.Lease{Job: id, Token: local.token}
	}
	e.mu.Unlock()
	if local != nil {
		e.order(lease, job.OrderCancel)
	}
}

// Retry queues a failed, cancelled or expired job again. For any other job it returns
// [job.NotRetryable].
func (e *Engine) Retry(ctx context.Context, owner job.Owner, id job.ID) (Snapshot, error) {
	owner, err := e.ownerOf(ctx, owner, id)
	if err != nil {
		return Snapshot{}, err
	}
	op := &store.Retry{Owner: owner, ID: id}
	if err := e.doUrgent(ctx, op); err != nil {
		return Snapshot{}, err
	}
	if op.Err != nil {
		return Snapshot{}, op.Err
	}
	return e.snapshotAfter(ctx, &op.Job), nil
}

// Delete removes a job with all its data. A running job is cancelled first.
func (e *Engine) Delete(ctx context.Context, owner job.Owner, id job.ID) error {
	owner, err := e.ownerOf(ctx, owner, id)
	if err != nil && job.CodeOf(err) != job.NotFound { // one that was deleted before is known to the store
		return err
	}
	op := &store.Delete{Owner: owner, ID: id}
	if err := e.doUrgent(ctx, op); err != nil {
		return err
	}
	return op.Err
}

// ownerOf returns the owner of a job that a [job.WholeTenant] names: ops take no other. The owner of
// a job never changes. For an error, and for any other owner, it returns the owner as it is.
func (e *Engine) ownerOf(ctx context.Context, owner job.Owner, id job.ID) (job.Owner, error) {
	if !owner.IsWholeTenant() {
		return owner, nil
	}
	j, err := e.store.Job(ctx, owner, id)
	if err != nil {
		return owner, err
	}
	return j.Owner, nil
}

// deleted stops the work of a deleted job, and makes its watchers read the store.
func (e *Engine) deleted(op *store.Delete) {
	if op.Err != nil {
		return
	}
	if op.Running {
		e.cancelRunning(op.ID, e.store.Now())
	}
	e.notifyReread(op.ID)
}

// notifyReread makes watchers read the job from the store.
func (e *Engine) notifyReread(id job.ID) {
	e.hub.Publish(id, watch.Event{Job: &job.Job{ID: id}})
}

// retried notifies the watchers of the queued job, and schedules a sweep for the end of its time
// in the queue.
func (e *Engine) retried(op *store.Retry) {
	if op.Err != nil {
		return
	}
	e.publish(&op.Job)
	e.scheduleSweep(&op.Job)
}

// Write stores side rows that belong to no job. Conflicts are as in [Engine.Submit].
func (e *Engine) Write(ctx context.Context, rows ...store.Row) error {
	op := &store.Write{Rows: rows}
	if err := e.doUrgent(ctx, op); err != nil {
		return err
	}
	return withConflict(op.Err, op.Conflict)
}

// publish sends the changed job to its watchers.
func (e *Engine) publish(j *job.Job) {
	e.hub.Publish(j.ID, watch.Event{Job: j})
}
