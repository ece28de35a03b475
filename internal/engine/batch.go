package engine

import (
	"context"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// pendingBatch is one batch and the ops that wait for it.
type pendingBatch struct {
	batch  *store.Batch
	ops    []*pendingOp // in the order in which the store applies them
	claims []claim

	giveUpTurn func() // see [store.Beginner]; nil if the batch does not have its turn

	// Set by commit, or by gatherInTurn.
	began time.Time

	// Set by commit.
	synced func() error // waits until the batch is on disk; nil if it was not applied
	err    error        // the error if it was not applied

	partialErr error // the error of its last ops, each of which has its own refusal

	outdated bool // its outcome is unknown, and the store works; see [store.ErrOutdated]

	assumed bool // assumeDurable has used its answers

	resources   map[string]int // the leased jobs that the engine's resources count, by resource
	roomChanges int64          // resources.changes before the batch was made
}

// claim is an op that the loop makes for a consumer with free slots.
type claim struct {
	op       *store.Claim
	consumer *consumer
	recorded bool // its unused slots were freed
	jobs     int  // number of claimed jobs, once recorded
}

// recordClaimed frees the slots for which the claim got no job. A batch with an unknown outcome is
// applied again, and may get more or fewer jobs than the first time.
func (c *claim) recordClaimed(jobs int) {
	if c.recorded {
		c.consumer.release(c.jobs - jobs)
	} else {
		c.consumer.releaseUnclaimed(c.op, jobs)
	}
	c.recorded, c.jobs = true, jobs
}

// gatherInTurn makes the next batch, once it is this process's turn to move jobs.
func (e *Engine) gatherInTurn(ctx context.Context) *pendingBatch {
	if e.beginner == nil || !e.lanes.hasMoves() && !e.needsClaim() {
		return e.gather()
	}
	began := time.Now()
	e.commits.begin(began)
	cancel := e.beginner.Begin(ctx)
	pb := e.gather()
	pb.began, pb.giveUpTurn = began, cancel
	if pb.batch.Len() == 0 {
		e.commits.end()
		cancel()
	}
	return pb
}

// hasMoves reports whether an op waits that may move a job.
func (l *lanes) hasMoves() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting[laneSubmit])+len(l.waiting[laneUpkeep]) > 0 {
		return true
	}
	return slices.ContainsFunc(l.waiting[laneUrgent], func(p *pendingOp) bool {
		switch p.op.(type) {
		case *store.Renew, *store.Presence:
			return false
		}
		return true
	})
}

// gather makes the next batch from the waiting ops. It frees the slots of its finishes, assigns
// submits to free slots, and adds claims for the remaining slots.
func (e *Engine) gather() *pendingBatch {
	pb := &pendingBatch{batch: store.NewBatch(), ops: inStoreOrder(e.refuseEarlySweeps(e.lanes.take()))}
	pb.batch.Limits, pb.batch.MaxKept = *e.limits.Load(), e.maxKept
	// Finishes first, so that this batch can fill the slots that they free.
	for _, p := range pb.ops {
		if f, ok := p.op.(*store.Finish); ok && !p.swept {
			e.freeSlot(f.Lease)
		}
	}
	pb.roomChanges = e.resources.changes.Load()
	room := e.resources.room()
	for _, p := range pb.ops {
		if p.submits == nil {
			pb.batch.Add(p.op)
			continue
		}
		for i, s := range p.submits {
			p.consumers[i] = e.assign(s, room)
		}
		pb.batch.Submits = append(pb.batch.Submits, p.submits...)
	}
	pb.batch.Room = room
	// Claims last: they may take the jobs that the ops above make ready.
	for _, name := range e.names {
		if e.claimsStopped {
			break
		}
		pb.claims = append(pb.claims, e.queues[name].makeClaims(pb.batch)...)
	}
	for _, c := range pb.claims {
		pb.batch.Claims = append(pb.batch.Claims, c.op)
	}
	return pb
}

// refuseEarlySweeps refuses the sweep's finishes if this process is no longer healthy. Their
// workers could not renew or report meanwhile, so their leases may not be swept.
func (e *Engine) refuseEarlySweeps(ops []*pendingOp) []*pendingOp {
	return slices.DeleteFunc(ops, func(p *pendingOp) bool {
		f, ok := p.op.(*store.Finish)
		if !ok || !needsHealth(f.OnlyIf) || e.sweeper.maySweepLeases() {
			return false
		}
		f.Err = job.Errorf(job.LeaseLost, "the server itself stood still: the worker gets time to renew")
		p.answer()
		return true
	})
}
