package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	// lookEvery is how often the disk is asked for its room while submits come, and
	// lookAgain how soon it is asked again before something is refused.
	measureInterval   = time.Second
	remeasureInterval = 10 * time.Millisecond
	// fullPause is how long a full disk is left alone before it is tried again.
	fullDiskPause = 100 * time.Millisecond
	// fullWait is how long a cancel or a delete waits for room before it is refused.
	fullDiskWait = 5 * time.Second
	// fullRetry is when a client may try again that was refused for want of room.
	fullDiskRetryAfter = 30 * time.Second
	// smallEnd is how large an end may be that is tried on a full disk although it may
	// not fit.
	smallFinish = 64 << 10
	// lastWords is how many bytes a full disk takes of what an attempt says.
	maxFullDiskOutput = 16 << 10
	// twice is how often a byte is written: to the log of the store and to its place.
	writesPerByte = 2
)

// disk knows whether there is room for new work. Some is always kept back, so that
// what ends work, and so makes room, can still be written. The disk is looked at now
// and then; what was let in since is counted.
type disk struct {
	// Set once.
	free    func() (int64, error) // nil when it cannot be asked
	minFree int64                 // bytes that are kept back
	log     *slog.Logger

	mu sync.Mutex
	// Guarded by mu.
	measuredAt       time.Time // when it was last asked for its room
	freeBytes        int64     // the room that it had then
	measureFailed    bool      // the last look failed
	admittedBytes    int64     // bytes of submits that were let in and are not answered yet
	commitOtherBytes int64     // bytes of the commit under way, without its submits
	commitBytes      int64     // bytes of the commit under way
	writtenBytes     int64     // bytes of the commits since the last look
	fullAt           time.Time // when a commit last met it full
	reported         bool      // that there is no room
}

// room says whether there is room on the disk for new work: [job.NoSpace] when there
// is not.
func (d *disk) checkSpace() error { return d.admit(0) }

// admit counts a submit of so many bytes in, until answered counts it out, or says that
// there is no room for it.
func (d *disk) admit(bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	refused := !d.fitsLocked(d.admittedBytes+bytes, d.minFree) || time.Since(d.fullAt) < measureInterval
	d.reportLocked(refused, nil)
	if refused {
		return noSpace(nil)
	}
	d.admittedBytes += bytes
	return nil
}

// answered counts submits out again.
func (d *disk) release(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.admittedBytes -= bytes
}

// begin counts a commit in that adds so many bytes, some of them those of submits, and
// says whether they fit; end counts it among those that were written.
func (d *disk) beginCommit(bytes, submits int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes > 0 && !d.fitsLocked(bytes, 0) {
		return false
	}
	d.commitBytes, d.commitOtherBytes = bytes, bytes-submits
	return true
}

// fits says whether so many bytes may be written.
func (d *disk) fits(bytes int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fitsLocked(bytes, 0)
}

func (d *disk) endCommit() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writtenBytes += d.commitBytes
	d.commitBytes, d.commitOtherBytes = 0, 0
}

// fitsLocked says whether so many bytes may be written and some still be left. It looks
// at the disk when the last look was long ago, and before it says no.
func (d *disk) fitsLocked(bytes, least int64) bool {
	if d.free == nil {
		return true
	}
	ago := time.Since(d.measuredAt)
	if ago >= measureInterval {
		d.measureLocked()
	}
	if !d.hasBytesLocked(bytes, least) && ago >= remeasureInterval {
		d.measureLocked()
	}
	return d.hasBytesLocked(bytes, least)
}

func (d *disk) hasBytesLocked(bytes, least int64) bool {
	return d.measureFailed || d.freeBytes-writesPerByte*(d.writtenBytes+d.commitOtherBytes+bytes) >= least
}

// lookLocked asks for the room there is. Where that fails nothing is refused: the
// store will say.
func (d *disk) measureLocked() {
	left, err := d.free()
	if err != nil {
		d.log.Error("the room on the disk cannot be found out", "error", err)
	}
	d.measuredAt, d.freeBytes, d.measureFailed, d.writtenBytes = time.Now(), left, err != nil, 0
}

// sayLocked says once that there is no room, and once that there is again.
func (d *disk) reportLocked(refused bool, cause error) {
	switch {
	case refused && !d.reported:
		d.log.Error("the disk is full: no new work is taken until there is room", "kept_back", d.minFree, "room", d.freeBytes, "error", cause)
		d.reported = true
	case !refused && d.reported && d.hasBytesLocked(d.admittedBytes+job.MaxBody, d.minFree): // not for a small one that just fits
		d.log.Info("there is room on the disk again")
		d.reported = false
	}
}

// met notes that a commit met the disk full.
func (d *disk) setFull(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fullAt = time.Now()
	d.reportLocked(true, cause)
}

// HasDiskSpace says whether there is room on the disk for any new work: for the largest body.
func (e *Engine) HasDiskSpace() bool { return e.disk.hasSpace() }

func (d *disk) hasSpace() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.fullAt) >= measureInterval && d.fitsLocked(d.admittedBytes+job.MaxBody, d.minFree)
}

// errNoRoom is why a batch is not even tried.
var errNoSpace = fmt.Errorf("the disk has less room than the batch needs: %w: %w", store.ErrFull, store.ErrNotCommitted)

// adds is how many bytes a batch adds to the disk: 0 when it only ends work, or keeps
// it alive. A result is both, and counts. Submits is the part that was let in as new
// work.
func (w *pendingBatch) addedBytes() (bytes, submits int64) {
	for _, p := range w.ops {
		if p.submits != nil {
			submits += int64(p.bytes)
			continue
		}
		switch p.op.(type) {
		case *store.Renew, *store.Cancel, *store.Delete, *store.Prune:
		case *store.Finish:
			bytes += int64(p.bytes - opBytes)
		default:
			bytes += int64(p.bytes)
		}
	}
	return bytes + submits + int64(len(w.claims))*opBytes, submits
}

func noSpace(cause error) error {
	return &job.Error{Code: job.NoSpace, Message: "the server's disk is full", RetryAfter: fullDiskRetryAfter, Err: cause}
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

// mayAskAgain says whether an op is of a caller who can be told to come again: not a
// worker's.
func canRetryLater(p *pendingOp) bool {
	switch p.op.(type) {
	case *store.Cancel, *store.Delete, *store.Prune:
		return true
	}
	return false
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
