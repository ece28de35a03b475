package engine

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// settle hands on what a batch made that is on disk: jobs to workers, changes to
// watchers, answers to callers, in the order in which the store applied the ops.
func (e *Engine) settle(w *pendingBatch) {
	at := time.Now()
	e.fileRemover.add(w.batch.Removed) // before anyone is told: who then waits for them waits for these, too
	for _, p := range w.ops {
		e.settled(p)
		p.answer()
	}
	for _, m := range w.batch.Moved {
		e.hub.Publish(m.ID, watch.Event{State: m.State, Revision: m.Revision})
	}
	for _, c := range w.claims { // last, as they were applied: a job may have been finished and claimed
		e.deliverClaimed(c)
	}
	for i := range w.batch.FollowUps {
		e.scheduleSweep(&w.batch.FollowUps[i])
	}
	e.reportDamaged(w.batch.Damaged)
	e.peers.publish(w)
	e.observeBatch(w, at)
}

// settled does what follows from one committed op.
func (e *Engine) settled(p *pendingOp) {
	for i, op := range p.submits {
		e.submitted(op, p.consumers[i])
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
		e.finished(op, p.swept)
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

// refuse answers everyone in a batch that was not applied, or of which nobody
// knows whether it is on disk.
func (e *Engine) failBatch(w *pendingBatch) {
	if !w.assumed {
		for i := range w.claims {
			w.claims[i].recordGot(0)
		}
		e.reoccupySlots(w.ops, false)
	}
	for _, p := range w.ops {
		for _, to := range p.consumers {
			if to != nil {
				to.release(1)
			}
		}
		p.err = w.err
		p.answer()
	}
}

// tellDamaged tells the log, and watchers, of jobs whose records are damaged.
func (e *Engine) reportDamaged(ids []job.ID) {
	for _, id := range ids {
		e.log.Error("the record of a job is damaged on the disk: the job has failed, and others go on; `meanwhile check` looks at all of the data", "job", id)
		e.notifyReread(id)
	}
}
