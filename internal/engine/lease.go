package engine

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// live is a lease that a worker of this process holds.
type localLease struct {
	job           job.Job // as it was claimed, with what was appended since
	token         job.Token
	consumer      *consumer
	startedAt     time.Time // when the attempt began
	hasOutput     bool      // the attempt has said something
	earlierBytes  int64     // bytes that earlier attempts said
	slotFreed     bool      // its slot is free again: its finish is on its way, and says what becomes of the lease
	fullDiskBytes int64     // bytes that the attempt has said while the disk was full
}

// lease is the lease that the worker holds.
func (local *localLease) lease() job.Lease { return job.Lease{Job: local.job.ID, Token: local.token} }

// maySay refuses what would pass the bound of an attempt's output, or of a job's.
func (local *localLease) checkOutputLimit(size int64) error {
	switch said := local.job.OutputBytes + size; {
	case size == 0:
	case said-local.earlierBytes > job.MaxOutput:
		return job.Errorf(job.TooLarge, "the attempt has said more than %d MiB", job.MaxOutput>>20)
	case said > job.MaxJobOutput:
		return job.Errorf(job.TooLarge, "the job has said more than %d MiB", job.MaxJobOutput>>20)
	}
	return nil
}

// said notes what the attempt has said. What is noted already, because the append was made
// again or the store was asked meanwhile, does not count twice. The engine's mu is held.
func (local *localLease) recordOutput(entries []job.Entry, p *job.Progress) {
	if p != nil {
		local.job.Progress = *p
	}
	for i := range entries {
		if entries[i].Seq <= local.job.Cursor {
			continue
		}
		local.job.Cursor = entries[i].Seq
		local.job.OutputBytes += int64(len(entries[i].Data))
		local.hasOutput = local.hasOutput || entries[i].Kind.IsOutput()
	}
}

// holding is the lease that a worker says it holds, as it is now. One that this process
// did not hand out is asked for in the store, which has the last word anyway.
func (e *Engine) findLease(ctx context.Context, l job.Lease) (localLease, error) {
	if local, ok := e.findLocalLease(l); ok {
		return local, nil
	}
	list, err := e.store.Leases(ctx, []job.Lease{l})
	if err != nil {
		return localLease{}, err
	}
	if r := &list[0]; r.Token == l.Token && !l.Token.IsZero() {
		return localLease{job: r.Job, token: r.Token, earlierBytes: r.EarlierOutputBytes, hasOutput: r.HasOutput}, nil
	}
	return localLease{}, leaseLostError(l)
}

// holdsHere is a lease that a worker of this process holds.
func (e *Engine) findLocalLease(l job.Lease) (localLease, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	local := e.leases[l.Job]
	if local == nil || local.token != l.Token {
		return localLease{}, false
	}
	return *local, true
}

func leaseLostError(l job.Lease) error {
	return job.Errorf(job.LeaseLost, "the lease on %s is not held any more", l.Job)
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

// order tells the worker that holds a lease what to do.
func (e *Engine) order(l job.Lease, o job.Order) {
	e.mu.Lock()
	local := e.leases[l.Job]
	var to *consumer
	if local != nil && local.token == l.Token {
		to = local.consumer
	}
	e.mu.Unlock()
	if to != nil {
		to.order(l, o)
	}
}

// orderCancel orders a worker to stop that learns of a cancel by the answer to a write: the
// cancel itself may have been asked for elsewhere. It does not depend on whether anybody
// still waits for that answer.
func (e *Engine) orderCancel(l job.Lease, requested bool) {
	if requested {
		e.order(l, job.OrderCancel)
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

// lost lets go of a lease that another process has taken, or through which the attempt
// was ended there. One that no worker here holds is passed over.
func (e *Engine) leaseLost(l job.Lease) {
	if local := e.dropLease(l); local != nil {
		local.notifyLost()
	}
}

// refusedLease lets go of a lease that the store refused a write of: it is void, and its
// worker may never come to finish it.
func (e *Engine) dropIfLost(l job.Lease, err error) {
	if job.CodeOf(err) == job.LeaseLost {
		e.leaseLost(l)
	}
}

// lost tells the worker of a lease that was let go of.
func (local *localLease) notifyLost() {
	local.consumer.order(local.lease(), job.OrderLost)
	local.consumer.q.recordEnd(local.startedAt, time.Since(local.startedAt), false)
}

// gone lets go of the lease on a job that is held here. The job was removed from the store,
// or has another lease by now.
func (e *Engine) dropLeaseOn(id job.ID) {
	e.mu.Lock()
	local := e.leases[id]
	e.mu.Unlock()
	if local != nil {
		e.leaseLost(local.lease())
	}
}

// removed is gone for a job that is not in the store any more. Its own finish may have
// removed it, which is about to be answered: then that decides.
func (e *Engine) jobRemoved(id job.ID) {
	e.mu.Lock()
	local := e.leases[id]
	ending := local != nil && local.slotFreed
	e.mu.Unlock()
	if !ending {
		e.dropLeaseOn(id)
	}
}
