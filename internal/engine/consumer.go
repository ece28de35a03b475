package engine

import (
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// server is a worker that serves a queue: the demand that commits are matched with.
type consumer struct {
	job.Worker
	q       *queue
	stopped bool // guarded by q.mu: it takes no more jobs
	// free slots; guarded by q.mu. Below zero while a slot was filled whose finish then did
	// not apply.
	free int
}

// Consume gives jobs to the worker until stop is called, which returns at once; jobs
// that were delivered stay with the worker.
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

// take delivers a job, unless the server is gone or has more jobs than slots. It holds
// mu, so that nothing is delivered once stop has returned.
func (c *consumer) take(claimed job.Claimed) bool {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	if c.stopped || c.free < 0 {
		return false
	}
	c.Deliver(claimed)
	return true
}

// order tells the worker what to do.
func (c *consumer) order(l job.Lease, o job.Order) {
	if c.Order != nil {
		c.Order(l, o)
	}
}

// release frees slots of a server.
func (c *consumer) release(n int) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	c.free += n
}

// claimed frees the slots for which a claim got no job. When it got less than it asked
// for and the counts do not explain it, other processes may be about to take what is
// queued. Then the queue has no demand until a commit or a read gives new counts. Without
// that the loop would claim in vain as fast as it can.
func (c *consumer) releaseUnclaimed(op *store.Claim, got int) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	c.q.claiming -= len(op.Tokens)
	if got < len(op.Tokens) && c.q.counts.Queued > 0 && !c.q.queuedShrank && !c.q.blockedLocked(0) {
		c.q.claimFellShort = true
	}
	c.free += len(op.Tokens) - got
}
