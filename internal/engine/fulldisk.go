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

// errNoSpace is the error of a batch that is not given to the store, because it does not fit.
var errNoSpace = fmt.Errorf("the disk has less space than the batch needs: %w: %w", store.ErrFull, store.ErrNotCommitted)

// trimForFullDisk commits a part of a batch that does not fit on the disk: renewals, finishes
// with their last output, cancels and deletes. While that part does not fit either, it tries the
// cheaper half, so that a large result delays no delete, and a delete no renewal. The other ops
// go back to the front of their lanes. No lease is swept meanwhile, because workers cannot
// renew. A stopping server does not wait for space.
func (e *Engine) trimForFullDisk(ctx context.Context, pb *pendingBatch) {
	e.disk.setFull(pb.err)
	e.sweeper.markUnhealthy()
	refuseNewData(pb.batch, noSpace(pb.err))
	// Try a small op even if it seems not to fit, because the store may have some space of its
	// own. Try a large result only if it fits the measured space.
	large := int64(0)
	e.keepOnly(ctx, pb, func(p *pendingOp) bool {
		if fullDiskCost(p) > smallFinish {
			large += int64(p.bytes)
			return e.disk.fits(large)
		}
		return fullDiskCost(p) > 0 && e.mayAppendOnFullDisk(p)
	})
	for pb.batch.Len() > 0 {
		if pb.synced, pb.err = e.apply(ctx, pb.batch, applyOptions{certain: true}); !errors.Is(pb.err, store.ErrFull) {
			break
		}
		cheap := cheaperHalf(pb.ops)
		e.keepOnly(ctx, pb, func(p *pendingOp) bool { return cheap[p] })
	}
	if pb.batch.Len() == 0 {
		pb.synced, pb.err = nothingToSync, nil
	}
	// Count the output only now, because ops that went back to their lanes were not stored.
	e.countFullDiskOutput(pb.batch)
	time.Sleep(fullDiskPause)
}

// keepOnly reduces a batch that was not applied to the ops to keep and the refused ones. The
// other ops go back to their lanes. It refuses cancels and deletes that have waited for
// fullDiskWait, and all other ops if the server is stopping.
func (e *Engine) keepOnly(ctx context.Context, pb *pendingBatch, keep func(*pendingOp) bool) {
	for i := range pb.claims {
		pb.claims[i].recordClaimed(0)
	}
	batch, kept, back := store.NewBatch(), []*pendingOp(nil), []*pendingOp(nil)
	batch.Limits = pb.batch.Limits
	for _, p := range pb.ops {
		switch {
		case p.submits != nil || wasRefused(p.op):
			kept = append(kept, p)
		case keep(p):
			batch.Add(p.op)
			kept = append(kept, p)
		case ctx.Err() != nil || canRetryLater(p) && time.Since(p.queuedAt) >= fullDiskWait:
			p.err = noSpace(pb.err)
			e.reoccupySlots([]*pendingOp{p}, false)
			p.answer()
		default:
			e.reoccupySlots([]*pendingOp{p}, false)
			back = append(back, p)
		}
	}
	pb.batch, pb.ops, pb.claims = batch, kept, nil
	e.lanes.requeue(back)
}

// refuseNewData removes and refuses the ops of a batch that only add data and that the caller
// can repeat. It reports whether there were any.
func refuseNewData(b *store.Batch, refusal error) bool {
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

// wasRefused reports whether refuseNewData has refused an op.
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

// canRetryLater reports whether the caller of an op can repeat it later. A worker cannot.
func canRetryLater(p *pendingOp) bool {
	switch p.op.(type) {
	case *store.Cancel, *store.Delete, *store.Prune:
		return true
	}
	return false
}

// mayAppendOnFullDisk reports whether to try an op on a full disk. Output is tried up to a bound
// per attempt, because a command must store its last output before its finish. Attempts with
// more output wait, so that the others have space for theirs.
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

// countFullDiskOutput counts the output that attempts stored while the disk was full.
func (e *Engine) countFullDiskOutput(b *store.Batch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, op := range b.Appends {
		if local := e.leases[op.Lease.Job]; local != nil {
			local.fullDiskBytes += opBytes + entriesSize(op.Entries)
		}
	}
}

// nothingToSync is the sync function of a batch that wrote nothing, or is on disk already.
func nothingToSync() error { return nil }

// fullDiskCost returns how much space an op needs: its size in bytes, or a rank for small ops.
// It is 0 for ops that are not accepted on a full disk.
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

// cheaperHalf returns the half of the accepted ops that needs less space; empty for a single op.
func cheaperHalf(ops []*pendingOp) map[*pendingOp]bool {
	accepted := slices.DeleteFunc(slices.Clone(ops), func(p *pendingOp) bool { return fullDiskCost(p) == 0 })
	slices.SortStableFunc(accepted, func(a, b *pendingOp) int { return cmp.Compare(fullDiskCost(a), fullDiskCost(b)) })
	half := map[*pendingOp]bool{}
	for _, p := range accepted[:len(accepted)/2] {
		half[p] = true
	}
	return half
}

// requeue puts ops back at the front of their lanes, in their order.
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
