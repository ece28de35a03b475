package engine

import (
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

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

// writable refuses new work while the store cannot be written, or hangs: it would wait
// as long as the disk takes.
func (e *Engine) writable() error {
	if e.storeFailing.Load() || e.commits.slow() {
		return unwritable(nil)
	}
	return nil
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
	load := fairqueue.Load{Counts: q.counts, Arriving: q.readySubmits, Delayed: q.delayedSubmits, FreeSlots: q.availableSlotsLocked()}
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
