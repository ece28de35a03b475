package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
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

// prepare makes the op of a request, and refuses what would not be stored.
func (e *Engine) prepare(r *Request) (*store.Submit, error) {
	if e.stopping.Load() {
		return nil, &job.Error{Code: job.ShuttingDown, Message: "the server is stopping", RetryAfter: retrySoon}
	}
	if err := e.writable(); err != nil {
		return nil, err
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
	if len(r.Files) > 0 && r.ID == (job.ID{}) {
		return nil, job.Errorf(job.Internal, "files that belong to no job")
	}
	op := &store.Submit{Job: r.job(&q), Input: r.Input, Delay: r.Delay, Rows: r.Rows}
	if r.IdempotencyKey != "" {
		op.Idempotency = &store.Idempotency{Key: r.IdempotencyKey, Hash: r.Hash, Keep: e.idempotencyTTL}
	}
	return op, nil
}

// writable refuses new work while the store cannot be written, or hangs: it would wait
// as long as the disk takes.
func (e *Engine) writable() error {
	if e.storeFailing.Load() || e.commits.slow() {
		return unwritable(nil)
	}
	return nil
}

// job is the job that a request asks for, with the queue's word where it is silent.
func (r *Request) job(q *Queue) job.Job {
	j := job.Job{
		ID: r.ID, Owner: r.Owner, Queue: r.Queue, Key: r.Key, Priority: r.Priority,
		MaxAttempts: r.MaxAttempts, Metadata: r.Metadata, Policy: q.Policy, Refs: r.Refs, Tally: r.Tally,
		Files: r.Files, InputBytes: int64(len(r.Input)), Trace: r.Trace,
	}
	for i := range r.Files {
		j.InputBytes += r.Files[i].Size
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
	j.Policy.Keep = job.Keep{Failed: q.KeepFailed, Others: q.Keep}
	return j
}

// admit counts a submit in, unless there is no room for it.
func (e *Engine) admit(op *store.Submit) error {
	bytes := int64(submitSize(op))
	if err := e.disk.admit(bytes); err != nil {
		return err
	}
	err := e.queues[op.Job.Queue].admit(op)
	if err != nil {
		e.disk.release(bytes)
	}
	return err
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

// weight is what a submit takes of the room for what waits to be written.
func submitSize(op *store.Submit) int {
	size := opBytes + len(op.Input)
	for i := range op.Rows {
		size += len(op.Rows[i].Body)
	}
	return size
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

// CheckCapacity says whether a queue would take a job of so many bytes now: before those are
// received. Only the submit itself decides.
func (e *Engine) CheckCapacity(queue string, size int64) error {
	if _, err := e.Queue(queue); err != nil {
		return err
	}
	if err := firstOf(e.writable(), e.disk.checkSpace()); err != nil {
		return err
	}
	q := e.queues[queue]
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.checkCapacityLocked(size)
}

// admit counts a submit in, unless the queue holds all that it may.
func (q *queue) admit(op *store.Submit) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.checkCapacityLocked(op.Job.InputBytes); err != nil {
		return err
	}
	q.countSubmitLocked(op, 1)
	q.pendingBytes += op.Job.InputBytes
	return nil
}

// countLocked counts a submit among those on their way, or out again.
func (q *queue) countSubmitLocked(op *store.Submit, n int) {
	if op.Delay > 0 {
		q.delayedSubmits += n
	} else {
		q.readySubmits += n
	}
}

// roomLocked is the queue's word on one more job. A job that is larger than the
// queue may hold is taken when nothing else waits.
func (q *queue) checkCapacityLocked(size int64) error {
	load := fairqueue.Load{Counts: q.counts, Asked: q.readySubmits, Delayed: q.delayedSubmits, Free: q.availableSlotsLocked()}
	if load.Full(q.MaxDepth) {
		return q.queueFullLocked("%d jobs wait in it", load.Waiting())
	}
	held := q.counts.WaitingBytes + q.pendingBytes
	if q.MaxBytes > 0 && held > 0 && held+size > q.MaxBytes {
		return q.queueFullLocked("the jobs that wait in it hold %d MiB", held>>20)
	}
	return nil
}

func (q *queue) queueFullLocked(format string, held int64) error {
	return &job.Error{
		Code:       job.QueueFull,
		Message:    fmt.Sprintf("the queue %s is full: "+format, q.Name, held),
		RetryAfter: max(q.retryAfterLocked(), retrySoon),
	}
}

// answered counts the submits of a batch out again: those that were stored are in
// the queue's own counts by now.
func (e *Engine) releaseBatchSubmits(w *pendingBatch) {
	for _, p := range w.ops {
		e.releaseSubmits(p.submits, p.consumers)
	}
}

// countOut takes back what admit counted in. to says to whom submits were assigned:
// those are counted out already, but for their bytes.
func (e *Engine) releaseSubmits(ops []*store.Submit, to []*consumer) {
	if len(ops) == 0 {
		return
	}
	bytes := int64(0)
	defer func() { e.disk.release(bytes) }()
	for i, op := range ops {
		bytes += int64(submitSize(op))
		q := e.queues[op.Job.Queue]
		q.mu.Lock()
		if to == nil || to[i] == nil {
			q.countSubmitLocked(op, -1)
		}
		q.pendingBytes -= op.Job.InputBytes
		q.mu.Unlock()
	}
}

// known answers a submit that was not admitted: with the job that its idempotency
// key made, if it did, for that is no new work; else with the refusal.
func (e *Engine) resolveByKey(ctx context.Context, op *store.Submit, refusal error) (*job.Job, bool, error) {
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
	if job.CodeOf(err) == job.NotFound { // deleted since, and its key with it
		return nil, false, refusal
	}
	return &j, true, err
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
