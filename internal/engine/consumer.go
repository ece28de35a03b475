package engine

import (
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// consumer is a worker's subscription to the jobs of one queue. The loop matches its free slots
// with jobs.
type consumer struct {
	job.Worker
	q       *queue
	stopped bool // stop was called; guarded by q.mu
	// free is the number of free slots; guarded by q.mu. It is negative if the slot of a pending
	// finish was filled early and that finish was then refused.
	free int
}

// Consume gives jobs to the worker until stop is called. stop returns at once; delivered jobs
// stay with the worker.
func (e *Engine) Consume(w job.Worker) (stop func()) {
	q := e.queues[w.Queue]
	c := &consumer{Worker: w, q: q, free: w.Slots}
	q.mu.Lock()
	q.consumers = append(q.consumers, c)
	q.claimFellShort = false
	q.mu.Unlock()
	e.lanes.signal()
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		c.stopped = true
		q.consumers = slices.DeleteFunc(q.consumers, func(other *consumer) bool { return other == c })
	}
}

// take delivers a job and returns true. It returns false if the consumer has stopped or has no
// free slot. It holds mu during the delivery, so that nothing is delivered once stop has
// returned.
func (c *consumer) take(claimed job.Claimed) bool {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	if c.stopped || c.free < 0 {
		return false
	}
	c.Deliver(claimed)
	return true
}

// order sends the worker an order.
func (c *consumer) order(l job.Lease, o job.Order) {
	if c.Order != nil {
		c.Order(l, o)
	}
}

// release frees n slots; a negative n occupies them.
func (c *consumer) release(n int) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	c.free += n
}

// releaseUnclaimed frees the slots for which a claim got no job. If the counts do not explain
// the missing jobs, other processes may be about to claim the queued ones. Then the queue makes
// no claims until a commit or a read gives new counts: otherwise the loop would repeat futile
// claims without a pause.
func (c *consumer) releaseUnclaimed(op *store.Claim, got int) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	c.q.claiming -= len(op.Tokens)
	if got < len(op.Tokens) && c.q.counts.Queued > 0 && !c.q.queuedShrank && !c.q.blockedLocked(0) {
		c.q.claimFellShort = true
	}
	c.free += len(op.Tokens) - got
}
