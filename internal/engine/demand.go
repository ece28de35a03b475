package engine

import (
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// maxClaim bounds the jobs of one claim, because all other ops wait while the store reads the
// jobs' inputs.
const maxClaim = 256

// assign gives a submit to a consumer with a free slot if no other job of the queue waits and its
// resource has room. The job is then stored with its lease, which saves a claim. It returns nil if
// the job must be queued.
func (e *Engine) assign(op *store.Submit, room fairqueue.Room) *consumer {
	q := e.queues[op.Job.Queue]
	q.mu.Lock()
	defer q.mu.Unlock()
	// A queued job has its turn before this one.
	if op.Delay > 0 || q.counts.Queued > 0 || q.blockedLocked(0) || !room.Has(op.Job.Resource) {
		return nil
	}
	for i, c := range q.consumers {
		if c.free <= 0 {
			continue
		}
		c.free--
		room.Take(op.Job.Resource)
		q.readySubmits-- // the job will not wait
		if i > 0 {       // consumers without a free slot go to the back
			q.consumers = append(slices.Clone(q.consumers[i:]), q.consumers[:i]...)
		}
		op.Token, op.Worker, op.LeaseFor = job.NewToken(), c.Name, op.Job.Policy.Timeouts.Lease
		op.Process, op.InUse = q.process, true
		return c
	}
	return nil
}

// makeClaims makes claims for the free slots of the queue, if jobs may be ready once the batch
// is applied.
func (q *queue) makeClaims(b *store.Batch) (list []claim) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// After a claim fell short, claim only with a batch that is committed anyway: a batch of
	// claims alone would probably claim no job.
	if q.blockedLocked(len(b.Finishes)) || q.claimFellShort && b.Len() == 0 {
		return nil
	}
	ready := int(q.counts.Queued) + q.maxMadeReady(b)
	for _, c := range q.consumers {
		n := min(c.free, ready, maxClaim)
		if n <= 0 {
			continue
		}
		ready -= n
		c.free -= n
		q.claiming += n
		op := &store.Claim{Queue: q.Name, Worker: c.Name, Process: q.process, InUse: true, Tokens: make([]job.Token, n)}
		for i := range op.Tokens {
			op.Tokens[i] = job.NewToken()
		}
		list = append(list, claim{op: op, consumer: c})
	}
	return list
}

// maxMadeReady returns an upper bound of the jobs that the batch makes ready.
func (q *queue) maxMadeReady(b *store.Batch) int {
	n := 0
	for _, s := range b.Submits {
		if s.Job.Queue == q.Name && s.Token.IsZero() && s.Delay == 0 {
			n++
		}
	}
	for _, f := range b.Finishes {
		if f.To == job.Queued {
			n++
		}
	}
	n += len(b.Retries)
	for _, d := range b.Dues {
		n += min(d.Limit, int(q.counts.Scheduled))
	}
	// The end of a job can unpark another job of its key.
	n += min(len(b.Finishes)+len(b.Cancels)+len(b.Deletes)+len(b.Dues)*sweepLimit, int(q.counts.Parked))
	return n
}

// needsClaim reports whether the queue has both a free slot and a queued job.
func (e *Engine) needsClaim() bool {
	for _, name := range e.names {
		q := e.queues[name]
		q.mu.Lock()
		more := q.counts.Queued > 0 && !q.claimFellShort && !q.blockedLocked(0) && slices.ContainsFunc(q.consumers, func(c *consumer) bool { return c.free > 0 })
		q.mu.Unlock()
		if more {
			return true
		}
	}
	return false
}

// deliverClaimed delivers the jobs of a claim and notifies their watchers. began is before the
// commit of the claim.
func (e *Engine) deliverClaimed(c claim, began time.Time) {
	if c.op.Err != nil {
		e.log.Error("a claim was refused", "queue", c.op.Queue, "error", c.op.Err)
	}
	for _, claimed := range c.op.Claimed {
		e.deliver(c.consumer, claimed, began)
		e.publish(&claimed.Job)
	}
}

// deliver hands a leased job to its consumer. If the consumer has stopped or has no free slot,
// the job is released, and the attempt does not count.
//
// leasedAt is before the commit that stored the lease. The rest of the lease is counted from then
// by the clock of this process: the store's clock may have jumped since.
func (e *Engine) deliver(to *consumer, c job.Claimed, leasedAt time.Time) {
	e.observer.AttemptBegan(c.Job.Queue, max(e.store.Now().Sub(c.Job.RunAt), 0))
	began := time.Now()
	c.Left = c.Job.Policy.Timeouts.Lease - began.Sub(leasedAt)
	to.q.recordStart(began)
	e.dropLeaseOn(c.Job.ID) // an earlier attempt ran here and was ended through another process
	// Before the delivery, because the worker may write at once.
	e.mu.Lock()
	e.leases[c.Job.ID] = &localLease{job: c.Job, token: c.Token, earlierBytes: c.Job.OutputBytes, consumer: to, startedAt: began}
	e.mu.Unlock()
	if to.take(c) {
		return
	}
	e.freeSlot(c.Lease())
	op := e.finishFor(&c.Job, job.Outcome{Released: true}, false)
	op.Lease, op.Unused = c.Lease(), true
	// Do not wait for the answer: the caller may be the loop itself.
	if err := e.lanes.put(&pendingOp{lane: laneUrgent, bytes: opBytes, op: op}); err != nil {
		e.log.Warn("a job could not be released", "job", c.Job.ID, "error", err)
	}
}
