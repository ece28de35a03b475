package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// errNoRoom is why a batch is not even tried.
var errNoSpace = fmt.Errorf("the disk has less room than the batch needs: %w: %w", store.ErrFull, store.ErrNotCommitted)

// squeeze commits a part of a batch that has no room on the disk: what ends work, with its
// last output, and what keeps work alive. While that does not fit either, it tries the
// lighter half: so a large result delays no delete, and a delete no renewal. The other ops
// go back to the front of their lanes. No lease is taken meanwhile, for workers cannot
// renew. A server that is stopping does not wait for room.
func (e *Engine) trimForFullDisk(ctx context.Context, w *pendingBatch) {
	e.disk.setFull(w.err)
	e.sweeper.markUnhealthy()
	refuseGrowth(w.batch, noSpace(w.err))
	large := int64(0)
	e.keepOnly(ctx, w, func(p *pendingOp) bool {
		if fullDiskCost(p) > smallFinish {
			large += int64(p.bytes)
			return e.disk.fits(large)
		}
		return fullDiskCost(p) > 0 && e.mayAppendOnFullDisk(p)
	})
	for w.batch.Len() > 0 {
		if w.synced, w.err = e.apply(ctx, w.batch, applyOptions{certain: true}); !errors.Is(w.err, store.ErrFull) {
			break
		}
		light := cheaperHalf(w.ops)
		e.keepOnly(ctx, w, func(p *pendingOp) bool { return light[p] })
	}
	if w.batch.Len() == 0 {
		w.synced, w.err = nothingToSync, nil
	}
	e.countFullDiskOutput(w.batch)
	time.Sleep(fullDiskPause)
}

// putBack leaves in a batch that was not applied the ops to keep, and those that were
// refused; the others go back to their lanes. A server that is stopping refuses them, and
// so is refused who has waited for long enough to cancel or delete.
func (e *Engine) keepOnly(ctx context.Context, w *pendingBatch, keep func(*pendingOp) bool) {
	for i := range w.claims {
		w.claims[i].recordGot(0)
	}
	batch, kept, back := store.NewBatch(), []*pendingOp(nil), []*pendingOp(nil)
	batch.Limits = w.batch.Limits
	for _, p := range w.ops {
		switch {
		case p.submits != nil || wasRefused(p.op):
			kept = append(kept, p)
		case keep(p):
			batch.Add(p.op)
			kept = append(kept, p)
		case ctx.Err() != nil || canRetryLater(p) && time.Since(p.queuedAt) >= fullDiskWait:
			p.err = noSpace(w.err)
			e.reoccupySlots([]*pendingOp{p}, false)
			p.answer()
		default:
			e.reoccupySlots([]*pendingOp{p}, false)
			back = append(back, p)
		}
	}
	w.batch, w.ops, w.claims = batch, kept, nil
	e.lanes.requeue(back)
}

// refuseGrowth takes out of a batch what only adds to the disk and can be asked for
// again, and says whether there was any.
func refuseGrowth(b *store.Batch, refusal error) bool {
	before := b.Len()
	for _, op := range b.Submits {
		op.Err = refusal
	}
	for _, op := range b.Writes {
		op.Err = refusal
	}
	for _, op := range b.Retries {
		op.Err = refusal
	}
	for _, op := range b.Pauses {
		op.Err = refusal
	}
	for _, op := range b.Dues {
		op.Err = refusal
	}
	for _, op := range b.Presences {
		op.Err = refusal
	}
	b.Submits, b.Writes, b.Retries, b.Pauses, b.Dues, b.Presences = nil, nil, nil, nil, nil, nil
	return b.Len() < before
}

// refusedOp says whether an op was refused for want of room.
func wasRefused(op any) bool {
	switch op := op.(type) {
	case *store.Write:
		return op.Err != nil
	case *store.Retry:
		return op.Err != nil
	case *store.Pause:
		return op.Err != nil
	case *store.Due:
		return op.Err != nil
	case *store.Presence:
		return op.Err != nil
	}
	return false
}

// mayAskAgain says whether an op is of a caller who can be told to come again: not a
// worker's.
func canRetryLater(p *pendingOp) bool {
	switch p.op.(type) {
	case *store.Cancel, *store.Delete, *store.Prune:
		return true
	}
	return false
}

// mayStillSay says of output whether it is among the last words that a full disk takes
// of an attempt: the end of a command is stored after what it said. A job that says more
// waits, so that the others have room for theirs.
func (e *Engine) mayAppendOnFullDisk(p *pendingOp) bool {
	op, ok := p.op.(*store.Append)
	if !ok {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	local := e.leases[op.Lease.Job]
	return local == nil || local.fullDiskBytes+int64(p.bytes) <= maxFullDiskOutput
}

// saidExtra counts what attempts said while the disk was full.
func (e *Engine) countFullDiskOutput(b *store.Batch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, op := range b.Appends {
		if local := e.leases[op.Lease.Job]; local != nil {
			local.fullDiskBytes += opBytes + entriesSize(op.Entries)
		}
	}
}

// onDisk is the sync of a batch that wrote nothing.
func nothingToSync() error { return nil }

// heft orders the ops that a full disk still takes by how little they need; 0 is for
// those that it does not take.
func fullDiskCost(p *pendingOp) int {
	switch p.op.(type) {
	case *store.Renew:
		return 1
	case *store.Cancel, *store.Delete:
		return 2
	case *store.Prune:
		return 3
	case *store.Finish, *store.Append:
		return p.bytes
	}
	return 0
}

// lighter is the lighter half of the ops that a batch holds: none of one.
func cheaperHalf(ops []*pendingOp) map[*pendingOp]bool {
	held := slices.DeleteFunc(slices.Clone(ops), func(p *pendingOp) bool { return fullDiskCost(p) == 0 })
	slices.SortStableFunc(held, func(a, b *pendingOp) int { return cmp.Compare(fullDiskCost(a), fullDiskCost(b)) })
	half := map[*pendingOp]bool{}
	for _, p := range held[:len(held)/2] {
		half[p] = true
	}
	return half
}

// putBack makes ops the next of their lanes, in their order.
func (l *lanes) requeue(ops []*pendingOp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var front [NumLanes][]*pendingOp
	for _, p := range ops {
		front[p.lane] = append(front[p.lane], p)
		l.bytes += p.bytes
		l.count += p.opCount()
		if p.isClientChange() {
			l.clientChanges++
		}
	}
	for i := range front {
		if len(front[i]) > 0 {
			l.waiting[i] = append(front[i], l.waiting[i]...)
		}
	}
	if len(ops) > 0 {
		l.signal()
	}
}
