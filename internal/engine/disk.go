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
	lookEvery = time.Second
	lookAgain = 10 * time.Millisecond
	// fullPause is how long a full disk is left alone before it is tried again.
	fullPause = 100 * time.Millisecond
	// fullWait is how long a cancel or a delete waits for room before it is refused.
	fullWait = 5 * time.Second
	// fullRetry is when a client may try again that was refused for want of room.
	fullRetry = 30 * time.Second
	// smallEnd is how large an end may be that is tried on a full disk although it may
	// not fit.
	smallEnd = 64 << 10
	// lastWords is how many bytes a full disk takes of what an attempt says.
	lastWords = 16 << 10
	// twice is how often a byte is written: to the log of the store and to its place.
	twice = 2
)

// disk knows whether there is room for new work. Some is always kept back, so that
// what ends work, and so makes room, can still be written. The disk is looked at now
// and then; what was let in since is counted.
type disk struct {
	// Set once.
	free  func() (int64, error) // nil when it cannot be asked
	least int64                 // bytes that are kept back
	log   *slog.Logger

	mu sync.Mutex
	// Guarded by mu.
	looked  time.Time // when it was last asked for its room
	left    int64     // the room that it had then
	unknown bool      // the last look failed
	asked   int64     // bytes of submits that were let in and are not answered yet
	writing int64     // bytes of the commit under way, without its submits
	wrote   int64     // bytes of the commit under way
	written int64     // bytes of the commits since the last look
	full    time.Time // when a commit last met it full
	said    bool      // that there is no room
}

// room says whether there is room on the disk for new work: [job.NoSpace] when there
// is not.
func (d *disk) room() error { return d.admit(0) }

// admit counts a submit of so many bytes in, until answered counts it out, or says that
// there is no room for it.
func (d *disk) admit(bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	refused := !d.fitsLocked(d.asked+bytes, d.least) || time.Since(d.full) < lookEvery
	d.sayLocked(refused, nil)
	if refused {
		return noSpace(nil)
	}
	d.asked += bytes
	return nil
}

// answered counts submits out again.
func (d *disk) answered(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked -= bytes
}

// begin counts a commit in that adds so many bytes, some of them those of submits, and
// says whether they fit; end counts it among those that were written.
func (d *disk) begin(bytes, submits int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes > 0 && !d.fitsLocked(bytes, 0) {
		return false
	}
	d.wrote, d.writing = bytes, bytes-submits
	return true
}

// fits says whether so many bytes may be written.
func (d *disk) fits(bytes int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fitsLocked(bytes, 0)
}

func (d *disk) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written += d.wrote
	d.wrote, d.writing = 0, 0
}

// fitsLocked says whether so many bytes may be written and some still be left. It looks
// at the disk when the last look was long ago, and before it says no.
func (d *disk) fitsLocked(bytes, least int64) bool {
	if d.free == nil {
		return true
	}
	ago := time.Since(d.looked)
	if ago >= lookEvery {
		d.lookLocked()
	}
	if !d.enoughLocked(bytes, least) && ago >= lookAgain {
		d.lookLocked()
	}
	return d.enoughLocked(bytes, least)
}

func (d *disk) enoughLocked(bytes, least int64) bool {
	return d.unknown || d.left-twice*(d.written+d.writing+bytes) >= least
}

// lookLocked asks for the room there is. Where that fails nothing is refused: the
// store will say.
func (d *disk) lookLocked() {
	left, err := d.free()
	if err != nil {
		d.log.Error("the room on the disk cannot be found out", "error", err)
	}
	d.looked, d.left, d.unknown, d.written = time.Now(), left, err != nil, 0
}

// sayLocked says once that there is no room, and once that there is again.
func (d *disk) sayLocked(refused bool, cause error) {
	switch {
	case refused && !d.said:
		d.log.Error("the disk is full: no new work is taken until there is room", "kept_back", d.least, "room", d.left, "error", cause)
		d.said = true
	case !refused && d.said && d.enoughLocked(d.asked+job.MaxBody, d.least): // not for a small one that just fits
		d.log.Info("there is room on the disk again")
		d.said = false
	}
}

// met notes that a commit met the disk full.
func (d *disk) met(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = time.Now()
	d.sayLocked(true, cause)
}

// HasDiskSpace says whether there is room on the disk for any new work: for the largest body.
func (e *Engine) HasDiskSpace() bool { return e.disk.hasRoom() }

func (d *disk) hasRoom() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.full) >= lookEvery && d.fitsLocked(d.asked+job.MaxBody, d.least)
}

// errNoRoom is why a batch is not even tried.
var errNoRoom = fmt.Errorf("the disk has less room than the batch needs: %w: %w", store.ErrFull, store.ErrNotCommitted)

// adds is how many bytes a batch adds to the disk: 0 when it only ends work, or keeps
// it alive. A result is both, and counts. Submits is the part that was let in as new
// work.
func (w *work) adds() (bytes, submits int64) {
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
	return &job.Error{Code: job.NoSpace, Message: "the server's disk is full", RetryAfter: fullRetry, Err: cause}
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
func (e *Engine) squeeze(ctx context.Context, w *work) {
	e.disk.met(w.err)
	e.sweeper.unhealthy()
	refuseGrowth(w.batch, noSpace(w.err))
	large := int64(0)
	e.putBack(ctx, w, func(p *pending) bool {
		if heft(p) > smallEnd {
			large += int64(p.bytes)
			return e.disk.fits(large)
		}
		return heft(p) > 0 && e.mayStillSay(p)
	})
	for w.batch.Len() > 0 {
		if w.synced, w.err = e.persist(ctx, w.batch, try{certain: true}); !errors.Is(w.err, store.ErrFull) {
			break
		}
		light := lighter(w.ops)
		e.putBack(ctx, w, func(p *pending) bool { return light[p] })
	}
	if w.batch.Len() == 0 {
		w.synced, w.err = onDisk, nil
	}
	e.saidExtra(w.batch)
	time.Sleep(fullPause)
}

// mayStillSay says of output whether it is among the last words that a full disk takes
// of an attempt: the end of a command is stored after what it said. A job that says more
// waits, so that the others have room for theirs.
func (e *Engine) mayStillSay(p *pending) bool {
	op, ok := p.op.(*store.Append)
	if !ok {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.live[op.Lease.Job]
	return h == nil || h.extra+int64(p.bytes) <= lastWords
}

// saidExtra counts what attempts said while the disk was full.
func (e *Engine) saidExtra(b *store.Batch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, op := range b.Appends {
		if h := e.live[op.Lease.Job]; h != nil {
			h.extra += opBytes + sizeOf(op.Entries)
		}
	}
}

// onDisk is the sync of a batch that wrote nothing.
func onDisk() error { return nil }

// heft orders the ops that a full disk still takes by how little they need; 0 is for
// those that it does not take.
func heft(p *pending) int {
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
func lighter(ops []*pending) map[*pending]bool {
	held := slices.DeleteFunc(slices.Clone(ops), func(p *pending) bool { return heft(p) == 0 })
	slices.SortStableFunc(held, func(a, b *pending) int { return cmp.Compare(heft(a), heft(b)) })
	half := map[*pending]bool{}
	for _, p := range held[:len(held)/2] {
		half[p] = true
	}
	return half
}

// putBack leaves in a batch that was not applied the ops to keep, and those that were
// refused; the others go back to their lanes. A server that is stopping refuses them, and
// so is refused who has waited for long enough to cancel or delete.
func (e *Engine) putBack(ctx context.Context, w *work, keep func(*pending) bool) {
	for i := range w.claims {
		w.claims[i].note(0)
	}
	batch, kept, back := store.NewBatch(), []*pending(nil), []*pending(nil)
	batch.Limits = w.batch.Limits
	for _, p := range w.ops {
		switch {
		case p.submits != nil || refusedOp(p.op):
			kept = append(kept, p)
		case keep(p):
			batch.Add(p.op)
			kept = append(kept, p)
		case ctx.Err() != nil || mayAskAgain(p) && time.Since(p.asked) >= fullWait:
			p.err = noSpace(w.err)
			e.retakeSlots([]*pending{p}, false)
			p.answer()
		default:
			e.retakeSlots([]*pending{p}, false)
			back = append(back, p)
		}
	}
	w.batch, w.ops, w.claims = batch, kept, nil
	e.lanes.putBack(back)
}

// mayAskAgain says whether an op is of a caller who can be told to come again: not a
// worker's.
func mayAskAgain(p *pending) bool {
	switch p.op.(type) {
	case *store.Cancel, *store.Delete, *store.Prune:
		return true
	}
	return false
}

// refusedOp says whether an op was refused for want of room.
func refusedOp(op any) bool {
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
func (l *lanes) putBack(ops []*pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var front [NumLanes][]*pending
	for _, p := range ops {
		front[p.lane] = append(front[p.lane], p)
		l.bytes += p.bytes
		l.count += p.rows()
		if p.changes() {
			l.changes++
		}
	}
	for i := range front {
		if len(front[i]) > 0 {
			l.waiting[i] = append(front[i], l.waiting[i]...)
		}
	}
	if len(ops) > 0 {
		l.ring()
	}
}
