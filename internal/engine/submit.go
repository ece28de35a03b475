package engine

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// SubmitResult is what became of one request of several.
type SubmitResult struct {
	Snapshot
	Existing bool // the idempotency key was known
	Err      error
}

// RowConflict is the row that a submit's [store.Insert] met.
type RowConflict struct{ Body []byte }

func (c *RowConflict) Error() string { return "the row is there already" }

// Submit stores a job and returns when it is on disk. existing says that the
// idempotency key was known: the snapshot is then of the job that it made.
// A [store.Insert] row that met another is a job.Conflict error whose cause is a
// *[RowConflict].
func (e *Engine) Submit(ctx context.Context, r Request) (snap Snapshot, existing bool, err error) {
	op, err := e.prepare(&r)
	if err != nil {
		return Snapshot{}, false, e.observeRefusal("submit", err)
	}
	queued := e.queues[op.Job.Queue].queued()
	j, existing, err := e.submitOne(ctx, op)
	if err != nil {
		return Snapshot{}, false, e.observeRefusal("submit", err)
	}
	if existing {
		return e.snapshotAfter(ctx, j), true, nil
	}
	return e.newJobSnapshot(ctx, j, int(queued)), false, nil
}

// SubmitAndWait is Submit, held until the job has ended or the wait is over; then
// the snapshot is of that moment. When ctx ends after the job is stored, the snapshot
// is of that moment too, and the job goes on; when ctx ends before, its error says so
// and whether the job is stored is not known. [job.Overloaded], and no job, past the
// bound of watchers.
func (e *Engine) SubmitAndWait(ctx context.Context, r Request, wait time.Duration) (Snapshot, bool, error) {
	op, err := e.prepare(&r)
	if err != nil {
		return Snapshot{}, false, e.observeRefusal("submit", err)
	}
	// Subscribed before the job exists, so that no end is missed and none is read.
	sub, err := e.subscribe(op.Job.ID)
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
		sub.Close() // it follows the id of a job that was not made
		snap, err = e.Wait(ctx, j.Owner, j.ID, wait)
	} else {
		snap, err = e.awaitEnd(ctx, sub, *j, wait)
	}
	if err != nil {
		snap = e.snapshotAfter(context.WithoutCancel(ctx), j)
	}
	return snap, existing, nil
}

// store1 puts one submit through the loop: the job it made, or the one that its
// idempotency key had made before.
func (e *Engine) submitOne(ctx context.Context, op *store.Submit) (j *job.Job, existing bool, err error) {
	if err := e.admit(op); err != nil {
		return e.resolveByKey(ctx, op, err)
	}
	l := &singleSubmit{ops: [1]*store.Submit{op}}
	l.submits, l.consumers = l.ops[:], l.server[:]
	if err := e.doSubmits(ctx, &l.pendingOp); err != nil {
		return nil, false, err
	}
	return submitAnswer(op)
}

// loneSubmit is a submit that comes alone, in one piece of memory.
type singleSubmit struct {
	pendingOp
	ops    [1]*store.Submit
	server [1]*consumer
}

// ask puts admitted submits through the loop, together.
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

// answerOf is what became of a submit that went through the loop.
func submitAnswer(op *store.Submit) (j *job.Job, existing bool, err error) {
	if op.Err != nil {
		return nil, false, withConflict(op.Err, op.Conflict)
	}
	if op.Existing != nil {
		return op.Existing, true, nil
	}
	return &op.Job, false, nil
}

// withConflict gives a refusal the row that it met.
func withConflict(err error, body []byte) error {
	if err == nil {
		return nil
	}
	if body == nil {
		return err
	}
	return job.Wrapf(job.CodeOf(err), &RowConflict{Body: body}, "%s", err.Error())
}

// submitted hands a stored job to the worker it was assigned to, or notes when the
// clock has something to do about it.
func (e *Engine) submitted(op *store.Submit, to *consumer) {
	stored := op.Err == nil && op.Existing == nil
	leased := stored && op.Job.State == job.Running
	if to != nil && !leased {
		to.release(1)
	}
	switch {
	case leased:
		e.deliver(to, job.Claimed{Job: op.Job, Input: op.Input, Token: op.Token, Until: op.Job.StartedAt.Add(op.LeaseFor)})
	case stored:
		e.scheduleSweep(&op.Job)
	}
}

// awaits tells the sweeper when a waiting job becomes ready, and when it will have
// waited too long.
func (e *Engine) scheduleSweep(j *job.Job) {
	if j.State == job.Scheduled {
		e.sweeper.scheduleAt(j.RunAt)
	}
	if d := j.Policy.Timeouts.Queue; d > 0 {
		e.sweeper.scheduleAt(j.RunAt.Add(d))
	}
}
