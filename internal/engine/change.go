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
	if _, err := e.store.Job(ctx, owner, id); err != nil { // no commit for a job that does not exist
		return Snapshot{}, err
	}
	op := &store.Cancel{Owner: owner, ID: id}
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
	op := &store.Delete{Owner: owner, ID: id}
	if err := e.doUrgent(ctx, op); err != nil {
		return err
	}
	return op.Err
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
