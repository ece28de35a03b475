package engine

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// SubmitResult is the answer to one of several requests.
type SubmitResult struct {
	Snapshot
	Existing bool // the idempotency key was known
	Err      error
}

// RowConflict is the cause of an error for a [store.Insert] whose row exists already. Body is
// the existing row.
type RowConflict struct{ Body []byte }

func (c *RowConflict) Error() string { return "the row is there already" }

// Submit stores a job and returns when it is on disk. existing means that the idempotency key
// was used before: the snapshot then shows the job of the first request. If the row of a
// [store.Insert] exists already, the error is a job.Conflict whose cause is a *[RowConflict].
func (e *Engine) Submit(ctx context.Context, r Request) (snap Snapshot, existing bool, err error) {
	op, err := e.prepare(&r)
	if err != nil {
		return Snapshot{}, false, e.observeRefusal("submit", err)
	}
	queued := e.queues[op.Job.Queue].queuedCount()
	j, existing, err := e.submitOne(ctx, op)
	if err != nil {
		return Snapshot{}, false, e.observeRefusal("submit", err)
	}
	if existing {
		return e.snapshotAfter(ctx, j), true, nil
	}
	return e.newJobSnapshot(ctx, j, int(queued)), false, nil
}

// SubmitAndWait stores a job and waits until it has ended, or for the time wait. The snapshot
// shows the job at that moment. If ctx ends after the job was stored, it returns the snapshot
// too, and the job goes on. If ctx ends before, it returns ctx's error, and it is unknown
// whether the job is stored. Above the limit of watchers it stores nothing and returns
// [job.Overloaded].
func (e *Engine) SubmitAndWait(ctx context.Context, r Request, wait time.Duration) (Snapshot, bool, error) {
	op, err := e.prepare(&r)
	if err != nil {
		return Snapshot{}, false, e.observeRefusal("submit", err)
	}
	// Subscribe before the job is stored, so that its end arrives as an event and needs no read.
	sub, err := e.subscribe(op.Job.Owner, op.Job.ID)
	if err != nil {
		return Snapshot{}, false, e.observeRefusal("submit", err)
	}
	j, existing, err := e.submitOne(ctx, op)
	if err != nil {
		sub.Close()
		return Snapshot{}, false, e.observeRefusal("submit", err)
	}
	var snap Snapshot
	if existing {
		sub.Close() // another job has the idempotency key, so nothing happens to this id
		snap, err = e.Wait(ctx, j.Owner, j.ID, wait)
	} else {
		snap, err = e.awaitEnd(ctx, sub, *j, wait)
	}
	if err != nil {
		snap = e.snapshotAfter(context.WithoutCancel(ctx), j)
	}
	return snap, existing, nil
}

// submitOne sends one submit through the loop. It returns the new job, or the existing job of
// its idempotency key.
func (e *Engine) submitOne(ctx context.Context, op *store.Submit) (j *job.Job, existing bool, err error) {
	if err := e.admit(op); err != nil {
		return e.resolveByKey(ctx, op, err)
	}
	l := &singleSubmit{ops: [1]*store.Submit{op}}
	l.submits, l.consumers = l.ops[:], l.consumer[:]
	if err := e.doSubmits(ctx, &l.pendingOp); err != nil {
		return nil, false, err
	}
	return submitAnswer(op)
}

// singleSubmit is one submit with its pendingOp in one allocation, because most submits come
// alone.
type singleSubmit struct {
	pendingOp
	ops      [1]*store.Submit
	consumer [1]*consumer
}

// doSubmits sends admitted submits through the loop as one op.
func (e *Engine) doSubmits(ctx context.Context, p *pendingOp) error {
	p.lane = laneSubmit
	for _, op := range p.submits {
		p.bytes += submitSize(op)
	}
	if err := e.lanes.put(p); err != nil {
		e.releaseSubmits(p.submits, nil)
		return err
	}
	return p.wait(ctx)
}

// submitAnswer returns the job of a submit that went through the loop, or its refusal.
func submitAnswer(op *store.Submit) (j *job.Job, existing bool, err error) {
	if op.Err != nil {
		return nil, false, withConflict(op.Err, op.Conflict)
	}
	if op.Existing != nil {
		return op.Existing, true, nil
	}
	return &op.Job, false, nil
}

// withConflict adds the existing row to an error, as its cause.
func withConflict(err error, body []byte) error {
	if err == nil || body == nil {
		return err
	}
	return job.Wrapf(job.CodeOf(err), &RowConflict{Body: body}, "%s", err.Error())
}

// submitted delivers a job that was stored with a lease, or schedules a sweep for a waiting one.
// began is before the commit.
func (e *Engine) submitted(op *store.Submit, to *consumer, began time.Time) {
	stored := op.Err == nil && op.Existing == nil
	leased := stored && op.Job.State == job.Running
	if to != nil && !leased {
		to.release(1)
	}
	switch {
	case leased:
		e.deliver(to, job.Claimed{Job: op.Job, Input: op.Input, Token: op.Token, Until: op.Job.StartedAt.Add(op.LeaseFor)}, began)
	case stored:
		e.scheduleSweep(&op.Job)
	}
}

// scheduleSweep schedules a sweep for the time when a waiting job becomes ready or when its time
// in the queue is over.
func (e *Engine) scheduleSweep(j *job.Job) {
	if j.State == job.Scheduled {
		e.sweeper.scheduleAt(j.RunAt)
	}
	if d := j.Policy.Timeouts.Queue; d > 0 {
		e.sweeper.scheduleAt(j.RunAt.Add(d))
	}
}
