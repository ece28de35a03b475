package engine

import (
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// work is one batch and who waits for it.
type pendingBatch struct {
	batch  *store.Batch
	ops    []*pendingOp // in the order in which the store applies them
	claims []claim

	// Set by commit.
	began  time.Time
	synced func() error // nil unless the batch was applied
	err    error        // why it was not

	partialErr error // why its last ops came to nothing; they say so themselves

	assumed bool // that its answers are final: of counts, and of slots
}

// claim is an op that the loop itself made, for a worker with free slots.
type claim struct {
	op       *store.Claim
	consumer *consumer
	recorded bool // the slots for which it got nothing are free again
	got      int  // how many jobs, as far as that is known
}

// note frees the slots for which the claim got no job. Where the batch is applied again
// because nobody knew whether it was stored, it may have got more or fewer than before.
func (c *claim) recordGot(got int) {
	if c.recorded {
		c.consumer.release(c.got - got)
	} else {
		c.consumer.releaseUnclaimed(c.op, got)
	}
	c.recorded, c.got = true, got
}

// gather makes the next batch: what waits in the lanes, the slots that its
// finishes free, submits given to whoever is free, and claims for the rest.
func (e *Engine) gather() *pendingBatch {
	w := &pendingBatch{batch: store.NewBatch(), ops: inStoreOrder(e.refuseEarlySweeps(e.lanes.take()))}
	w.batch.Limits = e.limits
	for _, p := range w.ops {
		if f, ok := p.op.(*store.Finish); ok && !p.swept {
			e.freeSlot(f.Lease)
		}
	}
	for _, p := range w.ops {
		if p.submits == nil {
			w.batch.Add(p.op)
			continue
		}
		for i, s := range p.submits {
			p.consumers[i] = e.assign(s)
		}
		w.batch.Submits = append(w.batch.Submits, p.submits...)
	}
	for _, name := range e.names {
		if e.claimsStopped {
			break
		}
		w.claims = append(w.claims, e.queues[name].makeClaims(w.batch)...)
	}
	for _, c := range w.claims {
		w.batch.Claims = append(w.batch.Claims, c.op)
	}
	return w
}

// spareHealthy refuses to take leases that a sweep found before a trouble of this process
// was over: their workers could not renew them, nor say anything.
func (e *Engine) refuseEarlySweeps(ops []*pendingOp) []*pendingOp {
	return slices.DeleteFunc(ops, func(p *pendingOp) bool {
		f, ok := p.op.(*store.Finish)
		if !ok || !needsHealth(f.OnlyIf) || e.sweeper.mayTakeLeases() {
			return false
		}
		f.Err = job.Errorf(job.LeaseLost, "the server itself stood still: the worker has its time to renew")
		p.answer()
		return true
	})
}
