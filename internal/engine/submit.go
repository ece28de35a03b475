package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// opBytes is what an op weighs besides its data.
const opBytes = 256

// Queue finds a queue by name; [job.UnknownQueue], with the names that exist.
func (e *Engine) Queue(name string) (Queue, error) {
	q := e.queues[name]
	if q == nil {
		return Queue{}, job.Errorf(job.UnknownQueue, "there is no queue %s; the queues are: %s", job.Quote(name), strings.Join(e.names, ", "))
	}
	return q.Queue, nil
}

// Submit stores a job and returns when it is on disk. existing says that the
// idempotency key was known: the snapshot is then of the job that it made.
// A [store.Insert] row that met another is a job.Conflict error whose cause is a
// *[RowConflict].
func (e *Engine) Submit(ctx context.Context, r Request) (snap Snapshot, existing bool, err error) {
	op, err := e.prepare(&r)
	if err != nil {
		return Snapshot{}, false, err
	}
	j, existing, err := e.store1(ctx, op)
	if err != nil {
		return Snapshot{}, false, err
	}
	if existing {
		snap, err = e.snapshot(ctx, j, nil)
	} else {
		snap, err = e.fresh(ctx, j)
	}
	return snap, existing, err
}

// SubmitAndWait is Submit, held until the job has ended or the wait is over; then
// the snapshot is of that moment. When ctx is over first, its error says so, and
// the job goes on. [job.Overloaded], and no job, past the bound of watchers.
func (e *Engine) SubmitAndWait(ctx context.Context, r Request, wait time.Duration) (Snapshot, bool, error) {
	op, err := e.prepare(&r)
	if err != nil {
		return Snapshot{}, false, err
	}
	// Subscribed before the job exists, so that no end is missed and none is read.
	sub, err := e.subscribe(op.Job.ID)
	if err != nil {
		return Snapshot{}, false, err
	}
	j, existing, err := e.store1(ctx, op)
	if err != nil || existing {
		sub.Close()
		if err != nil {
			return Snapshot{}, false, err
		}
		snap, err := e.Wait(ctx, j.Owner, j.ID, wait)
		return snap, true, err
	}
	snap, err := e.await(ctx, sub, *j, wait)
	return snap, false, err
}

// prepare makes the op of a request, and refuses what would not be stored.
func (e *Engine) prepare(r *Request) (*store.Submit, error) {
	if e.stopping.Load() {
		return nil, &job.Error{Code: job.ShuttingDown, Message: "the server is stopping", RetryAfter: retrySoon}
	}
	if e.failing.Load() {
		return nil, &job.Error{Code: job.Unavailable, Message: "the server cannot write to its disk at the moment", RetryAfter: retrySoon}
	}
	q, err := e.Queue(r.Queue)
	if err != nil {
		return nil, err
	}
	if q.Check != nil {
		if err := q.Check(r.Input); err != nil {
			return nil, err
		}
	}
	op := &store.Submit{Job: r.job(&q), Input: r.Input, Delay: r.Delay, Rows: r.Rows}
	if r.IdempotencyKey != "" {
		op.Idempotency = &store.Idempotency{Key: r.IdempotencyKey, Hash: r.Hash, Keep: e.keepKeys}
	}
	return op, nil
}

// job is the job that a request asks for, with the queue's word where it is silent.
func (r *Request) job(q *Queue) job.Job {
	j := job.Job{
		ID: r.ID, Owner: r.Owner, Queue: r.Queue, Key: r.Key, Priority: r.Priority,
		MaxAttempts: r.MaxAttempts, Metadata: r.Metadata, Policy: q.Policy, Ref: r.Ref,
	}
	if j.ID == (job.ID{}) {
		j.ID = job.NewID()
	}
	if j.Priority == 0 {
		j.Priority = job.DefaultPriority
	}
	if j.MaxAttempts == 0 {
		j.MaxAttempts = q.MaxAttempts
	}
	if r.Policy != nil {
		j.Policy = *r.Policy
	}
	return j
}

// store1 puts one submit through the loop: the job it made, or the one that its
// idempotency key had made before.
func (e *Engine) store1(ctx context.Context, op *store.Submit) (j *job.Job, existing bool, err error) {
	q := e.queues[op.Job.Queue]
	if err := q.admit(); err != nil {
		return e.known(ctx, op, err)
	}
	size := opBytes + len(op.Input)
	for i := range op.Rows {
		size += len(op.Rows[i].Body)
	}
	p := &pending{lane: laneSubmit, bytes: size, op: op}
	if err := e.lanes.put(p); err != nil {
		q.admitted(-1)
		return nil, false, err
	}
	if err := p.wait(ctx); err != nil {
		return nil, false, err
	}
	if op.Err != nil {
		return nil, false, withConflict(op.Err, op.Conflict)
	}
	if op.Existing != nil {
		return op.Existing, true, nil
	}
	return &op.Job, false, nil
}

// admit counts a submit in, unless the queue holds all that it may.
func (q *queue) admit() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	free := 0
	for _, s := range q.servers {
		free += s.free
	}
	waiting := int(q.counts.Waiting()) + q.asked - free
	if q.MaxDepth > 0 && waiting >= q.MaxDepth {
		return &job.Error{
			Code:       job.QueueFull,
			Message:    fmt.Sprintf("the queue %s is full: %d jobs wait in it", q.Name, q.counts.Waiting()),
			RetryAfter: max(q.pace.run/2, retrySoon),
		}
	}
	q.asked++
	return nil
}

// answered counts the submits of a batch out again: those that were stored are in
// the queue's own counts by now.
func (e *Engine) answered(w *work) {
	for _, p := range w.ops {
		if s, ok := p.op.(*store.Submit); ok {
			e.queues[s.Job.Queue].admitted(-1)
		}
	}
}

func (q *queue) admitted(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked += n
}

// known answers a submit that was not admitted: with the job that its idempotency
// key made, if it did, for that is no new work; else with the refusal.
func (e *Engine) known(ctx context.Context, op *store.Submit, refusal error) (*job.Job, bool, error) {
	if op.Idempotency == nil {
		return nil, false, refusal
	}
	owner := op.Job.Owner
	id, hash, err := e.store.Idempotent(ctx, owner, op.Idempotency.Key)
	if err != nil {
		return nil, false, refusal
	}
	if hash != op.Idempotency.Hash {
		return nil, false, job.Errorf(job.IdempotencyMismatch, "this idempotency key was used before, for another request")
	}
	j, err := e.store.Job(ctx, owner, id)
	return &j, true, err
}

// submitted hands a stored job to the worker it was assigned to.
func (e *Engine) submitted(op *store.Submit, to *server) {
	switch {
	case to == nil:
		if op.Err == nil && op.Existing == nil && op.Job.State == job.Scheduled {
			e.sweeper.dueAt(op.Job.RunAt)
		}
		if op.Err == nil && op.Existing == nil && op.Job.Policy.Timeouts.Queue > 0 {
			e.sweeper.dueAt(op.Job.RunAt.Add(op.Job.Policy.Timeouts.Queue))
		}
	case op.Err != nil || op.Existing != nil:
		to.release(1)
	default:
		e.deliver(to, job.Claimed{Job: op.Job, Input: op.Input, Token: op.Token, Until: op.Job.StartedAt.Add(op.LeaseFor)})
	}
}

// withConflict gives a refusal the row that it met.
func withConflict(err error, body []byte) error {
	if err == nil {
		return nil
	}
	if body == nil {
		return err
	}
	return job.Because(job.CodeOf(err), &RowConflict{Body: body}, "%s", err.Error())
}
