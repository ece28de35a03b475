package engine

import (
	"cmp"
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// CheckCapacity returns the error that a submit of size bytes would get now; nil if it would be
// admitted. Use it before receiving a body. It reserves nothing: the submit itself may still be
// refused.
func (e *Engine) CheckCapacity(queue string, size int64) error {
	if _, err := e.Queue(queue); err != nil {
		return err
	}
	if err := cmp.Or(e.writable(), e.disk.admit(0)); err != nil {
		return err
	}
	q := e.queues[queue]
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.checkCapacityLocked(size)
}

// writable refuses new work while the store cannot be written or a commit is slow. Otherwise new
// work would wait until the disk recovers.
func (e *Engine) writable() error {
	if e.storeFailing.Load() || e.commits.slow() {
		return unwritable(nil)
	}
	return nil
}

// admit reserves capacity for a submit, or refuses it. releaseSubmits frees the capacity.
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

// admit counts a submit as pending, or refuses it because the queue is full.
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

// countSubmitLocked adds n to the pending submits.
func (q *queue) countSubmitLocked(op *store.Submit, n int) {
	if op.Delay > 0 {
		q.delayedSubmits += n
	} else {
		q.readySubmits += n
	}
}

// checkCapacityLocked refuses another job of size bytes if the queue is full. It admits a single
// job above max_bytes while no other job waits: otherwise that job could never run.
func (q *queue) checkCapacityLocked(size int64) error {
	load := fairqueue.Load{Counts: q.counts, Arriving: q.readySubmits, Delayed: q.delayedSubmits, FreeSlots: q.availableSlotsLocked()}
	if load.Full(q.limits.Depth) {
		return q.queueFullLocked("%d jobs wait in it", load.Waiting())
	}
	waiting := q.counts.WaitingBytes + q.pendingBytes
	if limit := q.limits.Bytes; limit > 0 && waiting > 0 && waiting+size > limit {
		return q.queueFullLocked("the jobs that wait in it hold %d MiB", waiting>>20)
	}
	return nil
}

func (q *queue) queueFullLocked(format string, amount int64) error {
	return &job.Error{
		Code:       job.QueueFull,
		Message:    fmt.Sprintf("the queue %s is full: "+format, q.Name, amount),
		RetryAfter: max(q.retryAfterLocked(), retrySoon),
	}
}

// releaseBatchSubmits ends the counting of an applied batch's submits as pending: the queue's
// own counts now include the stored ones.
func (e *Engine) releaseBatchSubmits(pb *pendingBatch) {
	for _, p := range pb.ops {
		e.releaseSubmits(p.submits, p.consumers)
	}
}

// releaseSubmits undoes admit. consumers has the consumer of each submit, or nil. For submits
// with a consumer, assign has undone the count already, but not the bytes.
func (e *Engine) releaseSubmits(ops []*store.Submit, consumers []*consumer) {
	if len(ops) == 0 {
		return
	}
	bytes := int64(0)
	defer func() { e.disk.release(bytes) }()
	for i, op := range ops {
		bytes += int64(submitSize(op))
		q := e.queues[op.Job.Queue]
		q.mu.Lock()
		if consumers == nil || consumers[i] == nil {
			q.countSubmitLocked(op, -1)
		}
		q.pendingBytes -= op.Job.InputBytes
		q.mu.Unlock()
	}
}
