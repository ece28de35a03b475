package engine

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// localLease is a lease that this process gave to one of its workers.
type localLease struct {
	job           job.Job // the job as claimed, with the output appended since
	token         job.Token
	consumer      *consumer
	startedAt     time.Time // when the attempt began
	hasOutput     bool      // of this attempt
	earlierBytes  int64     // output of earlier attempts
	slotFreed     bool      // its finish is pending and has freed the slot
	fullDiskBytes int64     // output of this attempt while the disk was full
}

// lease returns the lease as its worker has it.
func (local *localLease) lease() job.Lease { return job.Lease{Job: local.job.ID, Token: local.token} }

// checkOutputLimit refuses size bytes of output if they would exceed the limit of the attempt or
// of the job.
func (local *localLease) checkOutputLimit(size int64) error {
	switch total := local.job.OutputBytes + size; {
	case size == 0:
	case total-local.earlierBytes > job.MaxOutput:
		return job.Errorf(job.TooLarge, "the attempt has more than %d MiB of output", job.MaxOutput>>20)
	case total > job.MaxJobOutput:
		return job.Errorf(job.TooLarge, "the job has more than %d MiB of output", job.MaxJobOutput>>20)
	}
	return nil
}

// recordOutput counts stored output of the attempt. It skips entries that are already counted,
// because an append was applied again or catchUp has read them. The caller holds the engine's
// mu.
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

// findLease returns the current state of a worker's lease. If another process handed it out, the
// state is read from the store. The commit checks the lease again in any case.
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

// findLocalLease returns a copy of a lease of this process's workers.
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
	return job.Errorf(job.LeaseLost, "the lease on %s is not valid any more", l.Job)
}

// freeSlot frees the slot of a lease whose finish is in the batch, so that the same batch can
// fill it. A second call does nothing.
func (e *Engine) freeSlot(l job.Lease) {
	e.mu.Lock()
	local := e.leases[l.Job]
	free := local != nil && local.token == l.Token && !local.slotFreed
	if free {
		local.slotFreed = true
	}
	e.mu.Unlock()
	if free {
		e.releaseSlot(local)
	}
}

// releaseSlot frees the slot of a lease, and the room that its job takes of its resource.
func (e *Engine) releaseSlot(local *localLease) {
	e.resources.add(local.job.Resource, -1)
	local.consumer.release(1)
}

// reoccupySlots undoes freeSlot for finishes that were refused although their leases are valid,
// and for batches that were not applied: the workers still have the jobs. If a job was claimed
// for such a slot, deliver releases it.
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
	reoccupied := local != nil && local.token == l.Token && local.slotFreed
	if reoccupied {
		local.slotFreed = false
	}
	e.mu.Unlock()
	if reoccupied {
		e.resources.add(local.job.Resource, 1)
		local.consumer.release(-1)
	}
}

// order sends an order to the worker of a lease.
func (e *Engine) order(l job.Lease, o job.Order) {
	// Without mu, because the order runs the worker's code.
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

// orderCancel sends a cancel order to a worker if the answer to one of its writes shows that a
// cancel was requested, in any process. It does so even if the caller no longer waits for that
// answer.
func (e *Engine) orderCancel(l job.Lease, requested bool) {
	if requested {
		e.order(l, job.OrderCancel)
	}
}

// dropLease removes a lease of this process and frees its slot, unless a pending finish has
// freed it already. It returns nil if no worker here has the lease.
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
		e.releaseSlot(local)
		e.lanes.signal() // no batch of this process fills the slot by itself
	}
	if free && local.job.Resource != "" {
		e.RoomChanged() // the last claim may have left jobs without room
	}
	return local
}

// handleLostLease drops a lease that another process swept or finished. It ignores leases of
// other processes' workers.
func (e *Engine) handleLostLease(l job.Lease) {
	local := e.dropLease(l)
	if local == nil {
		return
	}
	local.consumer.order(l, job.OrderLost)
	local.consumer.q.recordEnd(local.startedAt, time.Since(local.startedAt), false)
}

// dropIfLost drops a lease if the store refused a write because the lease is void. Its worker
// may never finish it.
func (e *Engine) dropIfLost(l job.Lease, err error) {
	if job.CodeOf(err) == job.LeaseLost {
		e.handleLostLease(l)
	}
}

// dropLeaseOn drops the lease of this process on a job that was deleted or has another lease
// now.
func (e *Engine) dropLeaseOn(id job.ID) {
	e.mu.Lock()
	local := e.leases[id]
	e.mu.Unlock()
	if local != nil {
		e.handleLostLease(local.lease())
	}
}

// dropLeaseOfRemoved drops the lease of a job that is no longer in the store. If the lease has a
// pending finish, that finish may have removed the job, so its answer decides.
func (e *Engine) dropLeaseOfRemoved(id job.ID) {
	e.mu.Lock()
	local := e.leases[id]
	ending := local != nil && local.slotFreed
	e.mu.Unlock()
	if !ending {
		e.dropLeaseOn(id)
	}
}
