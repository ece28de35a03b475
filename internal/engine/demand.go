package engine

import (
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// mostClaimed bounds the jobs that one claim leases: their inputs are read while
// everyone waits for the commit.
const maxClaim = 256

// queue is a queue and who serves it here.
type queue struct {
	Queue
	process job.Process // of this engine

	mu sync.Mutex
	// Guarded by mu.
	counts         job.Counts  // a hint: of the last commit that named the queue, or read since
	commits        int         // how many commits gave counts
	queuedShrank   bool        // by it fewer are queued than were known before
	claimFellShort bool        // a claim got less than it asked for although more are queued; no news of the queue came since
	readySubmits   int         // submits on their way that are ready at once and assigned to no worker
	delayedSubmits int         // submits on their way that become ready later
	pendingBytes   int64       // bytes of submits on their way
	claiming       int         // slots for which jobs are being claimed
	consumers      []*consumer // in turn: the first that has a free slot gets the next job
	estimator      estimator
}

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

// setCounts takes the counts that a commit answered.
func (q *queue) setCounts(c job.Counts) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queuedShrank, q.claimFellShort = c.Queued < q.counts.Queued, false
	q.counts = c
	q.commits++
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

// release frees slots of a server.
func (c *consumer) release(n int) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	c.free += n
}

// assign gives a submit to a worker with a free slot, when no other job of the queue waits:
// it will be stored already leased. Nil when it has to queue.
func (e *Engine) assign(op *store.Submit) *consumer {
	q := e.queues[op.Job.Queue]
	q.mu.Lock()
	defer q.mu.Unlock()
	if op.Delay > 0 || q.counts.Queued > 0 || q.blockedLocked(0) {
		return nil
	}
	for i, c := range q.consumers {
		if c.free <= 0 {
			continue
		}
		c.free--
		q.readySubmits-- // it does not wait
		if i > 0 {       // those without a free slot go to the back
			q.consumers = append(slices.Clone(q.consumers[i:]), q.consumers[:i]...)
		}
		op.Token, op.Worker, op.LeaseFor = job.NewToken(), c.Name, op.Job.Policy.Timeouts.Lease
		op.Process, op.InUse = q.process, true
		return c
	}
	return nil
}

// claims asks for jobs for every free slot of the queue, if there may be any once
// the batch is applied.
func (q *queue) makeClaims(b *store.Batch) (list []claim) {
	q.mu.Lock()
	defer q.mu.Unlock()
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

// usableLocked is how many slots would take a queued job at once.
func (q *queue) availableSlotsLocked() int {
	if q.blockedLocked(0) {
		return 0
	}
	free := q.claiming
	for _, c := range q.consumers {
		free += c.free
	}
	if q.MaxRunning > 0 {
		free = min(free, q.MaxRunning-int(q.counts.Running))
	}
	return free
}

// heldLocked says that the queue gives no jobs to workers for now: it is paused, or
// has as many running as it may, even when so many of them are about to end.
func (q *queue) blockedLocked(ending int) bool {
	return q.counts.Paused || q.MaxRunning > 0 && q.counts.Running-int64(ending) >= int64(q.MaxRunning)
}

// madeReady is how many jobs the batch may make ready, at most.
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
	// The end of one job of a key lets go of a parked one.
	n += min(len(b.Finishes)+len(b.Cancels)+len(b.Deletes)+len(b.Dues)*sweepLimit, int(q.counts.Parked))
	return n
}

// moreReady says whether a free slot and a queued job wait for each other.
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

// freeSlot frees the slot of a lease that is being finished, so that the same
// batch can fill it. Once: a lease that was lost has freed it already.
func (e *Engine) freeSlot(l job.Lease) {
	e.mu.Lock()
	local := e.leases[l.Job]
	free := local != nil && local.token == l.Token && !local.slotFreed
	if free {
		local.slotFreed = true
	}
	e.mu.Unlock()
	if free {
		local.consumer.release(1)
	}
}

// letGo takes a lease out of those that workers here hold, and frees its slot unless its
// own finish has done so. Nil when no worker here holds it.
func (e *Engine) dropLease(l job.Lease) *localLease {
	e.mu.Lock()
	local := e.leases[l.Job]
	if local == nil || local.token != l.Token {
		e.mu.Unlock()
		return nil
	}
	delete(e.leases, l.Job)
	free := !local.slotFreed
	local.slotFreed = true
	e.mu.Unlock()
	if free {
		local.consumer.release(1)
		e.lanes.signal() // whatever made it free, no batch of ours fills it
	}
	return local
}

// lease is the lease that the worker holds.
func (local *localLease) lease() job.Lease { return job.Lease{Job: local.job.ID, Token: local.token} }

// order tells the worker what to do.
func (c *consumer) order(l job.Lease, o job.Order) {
	if c.Order != nil {
		c.Order(l, o)
	}
}

// retakeSlots takes back the slots of finishes that did not apply although the lease is
// held, or of a batch that was not applied: their workers still have the jobs. What was
// claimed for such a slot meanwhile is handed back when it is to be delivered.
func (e *Engine) reoccupySlots(ops []*pendingOp, applied bool) {
	for _, p := range ops {
		f, ok := p.op.(*store.Finish)
		refused := ok && f.Err != nil && job.CodeOf(f.Err) != job.LeaseLost
		if ok && !p.swept && (refused || !applied) {
			e.reoccupySlot(f.Lease)
		}
	}
}

func (e *Engine) reoccupySlot(l job.Lease) {
	e.mu.Lock()
	local := e.leases[l.Job]
	taken := local != nil && local.token == l.Token && local.slotFreed
	if taken {
		local.slotFreed = false
	}
	e.mu.Unlock()
	if taken {
		local.consumer.release(-1)
	}
}

// deliver hands a leased job to its worker. One that has stopped serving since it
// asked, or has no slot for it after all, gives it back, at no cost of an attempt.
func (e *Engine) deliver(to *consumer, c job.Claimed) {
	now := e.store.Now()
	c.Left = c.Until.Sub(now)
	e.observer.AttemptBegan(c.Job.Queue, max(now.Sub(c.Job.RunAt), 0))
	began := time.Now()
	to.q.recordStart(began)
	e.dropLeaseOn(c.Job.ID) // an attempt that ran here, and was ended through another process
	e.mu.Lock()
	e.leases[c.Job.ID] = &localLease{job: c.Job, token: c.Token, earlierBytes: c.Job.OutputBytes, consumer: to, startedAt: began}
	e.mu.Unlock()
	if to.take(c) {
		return
	}
	e.freeSlot(c.Lease())
	op := e.finishFor(&c.Job, job.Outcome{Released: true}, false)
	op.Lease, op.Unused = c.Lease(), true
	if err := e.lanes.put(&pendingOp{lane: laneUrgent, bytes: opBytes, op: op}); err != nil {
		e.log.Warn("a job could not be handed back", "job", c.Job.ID, "error", err)
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

func (e *Engine) deliverClaimed(c claim) {
	if c.op.Err != nil {
		e.log.Error("a claim was refused", "queue", c.op.Queue, "error", c.op.Err)
	}
	for _, claimed := range c.op.Claimed {
		e.deliver(c.consumer, claimed)
		e.publish(&claimed.Job)
	}
}
