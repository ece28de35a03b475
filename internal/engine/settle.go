package engine

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// settle handles a batch that is on disk: it delivers jobs to workers, changes to watchers and
// answers to callers, in the order in which the store applied the ops.
func (e *Engine) settle(pb *pendingBatch) {
	at := time.Now()
	// Before the answers, so that a caller that then waits for removals waits for these too.
	e.fileRemover.add(pb.batch.Removed)
	for _, p := range pb.ops {
		e.settled(p, pb.began)
		p.answer()
	}
	for _, m := range pb.batch.Moved {
		e.hub.Publish(m.ID, watch.Event{State: m.State, Revision: m.Revision})
	}
	// Last, in the order of application: one batch may finish and claim the same job.
	for _, c := range pb.claims {
		e.deliverClaimed(c, pb.began)
	}
	for i := range pb.batch.FollowUps {
		e.scheduleSweep(&pb.batch.FollowUps[i])
	}
	e.reportDamaged(pb.batch.Damaged)
	e.peers.publish(pb)
	e.observeBatch(pb, at)
}

// settled updates leases, watchers and the sweeper after an op is on disk. began is before its
// commit.
func (e *Engine) settled(p *pendingOp, began time.Time) {
	for i, op := range p.submits {
		e.submitted(op, p.consumers[i], began)
	}
	switch op := p.op.(type) {
	case *store.Renew:
		e.dropIfLost(op.Lease, op.Err)
		e.orderCancel(op.Lease, op.CancelRequested)
	case *store.Append:
		e.appended(op)
		e.dropIfLost(op.Lease, op.Err)
		e.orderCancel(op.Lease, op.CancelRequested)
	case *store.Finish:
		e.finished(op, p.swept, p.fault)
	case *store.Cancel:
		e.cancelled(op)
	case *store.Delete:
		e.deleted(op)
	case *store.Retry:
		e.retried(op)
	case *store.Due:
		if op.Err != nil {
			return
		}
		for i := range op.Expired {
			e.publish(&op.Expired[i])
		}
	}
}

// failBatch answers the ops of a batch that was not applied, or whose outcome stays unknown.
func (e *Engine) failBatch(pb *pendingBatch) {
	if !pb.assumed {
		for i := range pb.claims {
			pb.claims[i].recordClaimed(0)
		}
		e.reoccupySlots(pb.ops, false)
	}
	e.resources.recount(pb.resources, nil)
	pb.resources = nil
	for _, p := range pb.ops {
		for _, to := range p.consumers {
			if to != nil {
				to.release(1)
			}
		}
		p.err = pb.err
		p.answer()
	}
}

// reportDamaged logs the jobs with damaged records, and makes their watchers read them.
func (e *Engine) reportDamaged(ids []job.ID) {
	for _, id := range ids {
		e.log.Error("the record of a job is damaged on the disk: the job has failed, others go on; `meanwhile check` checks all data", "job", id)
		e.notifyReread(id)
	}
}
