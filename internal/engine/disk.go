package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	// lookEvery is how often the disk is asked for its room while submits come.
	lookEvery = time.Second
	// fullPause is how long a full disk is left alone before it is tried again.
	fullPause = 250 * time.Millisecond
	// fullRetry is when a client may try again that was refused for want of room.
	fullRetry = 30 * time.Second
)

// disk knows whether there is room for new work. Some is always kept back, so that
// what ends work, and so makes room, can still be written.
type disk struct {
	// Set once.
	free  func() (int64, error) // nil when nobody knows
	least int64                 // bytes that are kept back
	log   *slog.Logger

	mu sync.Mutex
	// Guarded by mu.
	looked time.Time // when it was last asked for its room
	low    bool      // it had less than is kept back
	full   time.Time // when a commit last met it full
	said   bool      // that there is no room
}

// room says whether there is room on the disk for new work: [job.NoSpace] when there
// is not.
func (d *disk) room() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if d.free != nil && now.Sub(d.looked) >= lookEvery {
		d.looked = now
		d.lookLocked()
	}
	refused := d.low || now.Sub(d.full) < lookEvery
	d.sayLocked(refused, nil)
	if refused {
		return noSpace(nil)
	}
	return nil
}

// lookLocked asks for the room there is. Where that fails nothing is refused: the
// store will say.
func (d *disk) lookLocked() {
	free, err := d.free()
	if err != nil {
		d.log.Error("the room on the disk cannot be found out", "error", err)
	}
	d.low = err == nil && free < d.least
}

// sayLocked says once that there is no room, and once that there is again.
func (d *disk) sayLocked(refused bool, cause error) {
	switch {
	case refused && !d.said:
		d.log.Error("the disk is full: no new work is taken until there is room", "kept_back", d.least, "error", cause)
	case !refused && d.said:
		d.log.Info("there is room on the disk again")
	}
	d.said = refused
}

// met notes that a commit met the disk full.
func (d *disk) met(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = time.Now()
	d.sayLocked(true, cause)
}

func noSpace(cause error) error {
	return &job.Error{Code: job.NoSpace, Message: "the server's disk is full", RetryAfter: fullRetry, Err: cause}
}

// refuseGrowth takes out of a batch what only adds to the disk, and says whether
// there was any.
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
	b.Submits, b.Writes, b.Retries = nil, nil, nil
	return b.Len() < before
}

// squeeze commits of a batch that has no room on the disk what ends work, or if that
// is still too much, what keeps it alive. The rest waits at the front of its lanes,
// and no lease is taken meanwhile: a full disk is nobody's death. A server that is
// stopping does not wait for room.
func (e *Engine) squeeze(ctx context.Context, w *work) {
	e.disk.met(w.err)
	e.sweeper.unhealthy()
	for _, keep := range [...]func(op any) bool{endsWork, keepsAlive} {
		if !errors.Is(w.err, store.ErrFull) {
			break
		}
		e.putBack(ctx, w, keep)
		if w.synced, w.err = onDisk, nil; w.batch.Len() > 0 {
			w.synced, w.err = e.persist(ctx, w.batch)
		}
	}
	if errors.Is(w.err, store.ErrFull) {
		e.putBack(ctx, w, func(any) bool { return false })
		w.synced, w.err = onDisk, nil
	}
	time.Sleep(fullPause)
}

// onDisk is the sync of a batch that wrote nothing.
func onDisk() error { return nil }

func endsWork(op any) bool {
	switch op.(type) {
	case *store.Finish, *store.Cancel, *store.Delete:
		return true
	}
	return keepsAlive(op)
}

func keepsAlive(op any) bool {
	_, ok := op.(*store.Renew)
	return ok
}

// putBack leaves in a batch that was not applied the ops to keep, and those that
// were refused; the others go back to their lanes, or are refused by a server that is stopping.
func (e *Engine) putBack(ctx context.Context, w *work, keep func(op any) bool) {
	for _, c := range w.claims {
		c.to.release(len(c.op.Tokens))
	}
	batch, kept, back := store.NewBatch(), []*pending(nil), []*pending(nil)
	batch.Limits = w.batch.Limits
	for _, p := range w.ops {
		switch {
		case p.submits != nil || refusedOp(p.op):
			kept = append(kept, p)
		case keep(p.op):
			batch.Add(p.op)
			kept = append(kept, p)
		case ctx.Err() != nil:
			p.err = noSpace(w.err)
			p.answer()
		default:
			back = append(back, p)
		}
	}
	w.batch, w.ops, w.claims = batch, kept, nil
	e.lanes.putBack(back)
}

// refusedOp says whether an op was refused for want of room.
func refusedOp(op any) bool {
	switch op := op.(type) {
	case *store.Write:
		return op.Err != nil
	case *store.Retry:
		return op.Err != nil
	}
	return false
}

// putBack makes ops the next of their lanes, in their order.
func (l *lanes) putBack(ops []*pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var front [Lanes][]*pending
	for _, p := range ops {
		front[p.lane] = append(front[p.lane], p)
		l.bytes += p.bytes
		l.count += p.rows()
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
