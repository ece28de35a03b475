package engine

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	// maxListTime is how long a list reads pieces before it answers with a short page.
	maxListTime = 50 * time.Millisecond
	// maxOwnerLists bounds the lists of one owner that wait for their turn.
	maxOwnerLists = 256
)

// List returns a page of the owner's jobs, newest first. next is the cursor of the next page,
// zero at the end. A page may be short, even empty, although more jobs follow: if a filter
// selects few of many jobs, and no index finds them, the page ends after maxListTime.
//
// The store reads a page in pieces, and owners take turns with them. So lists use a bounded
// share of the machine, and an owner's lists delay those of others by little.
func (e *Engine) List(ctx context.Context, f job.Filter) (page []job.Job, next job.ID, err error) {
	limit, end := f.Limit, time.Now().Add(maxListTime)
	for {
		piece, next, err := e.listPiece(ctx, f)
		if err != nil {
			return nil, next, err
		}
		page = append(page, piece...)
		if next == (job.ID{}) || len(page) == limit || !time.Now().Before(end) {
			return page, next, nil
		}
		f.After, f.Limit = next, limit-len(page)
	}
}

// listPiece reads one page of the store when it is the owner's turn.
func (e *Engine) listPiece(ctx context.Context, f job.Filter) ([]job.Job, job.ID, error) {
	if err := e.listTurns.take(ctx, f.Owner); err != nil {
		return nil, job.ID{}, err
	}
	defer e.listTurns.done()
	return e.store.List(ctx, f)
}

// turns lets a few callers work at a time. Owners take turns, whatever number of callers each
// has.
type turns struct {
	mu sync.Mutex
	// Guarded by mu.
	free    int                           // callers that may begin at once
	waiting map[job.Owner][]chan struct{} // callers in line; done closes the channel of the next one
	order   []job.Owner                   // owners with waiting callers, the next one first
}

// newListTurns leaves most of the processors to other work.
func newListTurns() *turns {
	return &turns{free: max(1, runtime.GOMAXPROCS(0)/4), waiting: map[job.Owner][]chan struct{}{}}
}

// take waits for a turn of the owner. After nil the caller must call done.
func (t *turns) take(ctx context.Context, owner job.Owner) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	line := t.waiting[owner]
	if len(line) >= maxOwnerLists {
		t.mu.Unlock()
		return &job.Error{Code: job.Overloaded, Message: "too many of your lists are being read; ask again in a second", RetryAfter: time.Second}
	}
	if len(line) == 0 {
		t.order = append(t.order, owner)
	}
	mine := make(chan struct{})
	t.waiting[owner] = append(line, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
		t.leave(owner, mine)
		return ctx.Err()
	}
}

// leave removes a caller that no longer waits. If its turn has come meanwhile, it is over.
func (t *turns) leave(owner job.Owner, caller chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.waiting[owner], caller)
	if i < 0 {
		t.passLocked()
		return
	}
	t.waiting[owner] = slices.Delete(t.waiting[owner], i, i+1)
	if len(t.waiting[owner]) == 0 {
		delete(t.waiting, owner)
		t.order = slices.DeleteFunc(t.order, func(o job.Owner) bool { return o == owner })
	}
}

// done ends a turn.
func (t *turns) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.passLocked()
}

// passLocked gives a turn to the first caller of the next owner.
func (t *turns) passLocked() {
	if len(t.order) == 0 {
		t.free++
		return
	}
	owner := t.order[0]
	t.order = t.order[1:]
	line := t.waiting[owner]
	close(line[0])
	if len(line) == 1 {
		delete(t.waiting, owner)
		return
	}
	t.waiting[owner] = line[1:]
	t.order = append(t.order, owner)
}
