package storetest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// handle is the store of one of several processes.
type handle struct {
	store.Store
	// applyMu is locked during a commit. Handles of one store share it, so that a handle
	// that loses an answer repeats the batch before any other.
	applyMu *sync.Mutex
	// loseNext makes the next commit lose its answer.
	loseNext atomic.Bool
	close    func() error
}

// openSeveral opens n stores that share one database.
func (s Suite) openSeveral(tb testing.TB, path string, n int, o Options) []store.Store {
	if n == 1 {
		return []store.Store{s.Open(tb, path, o)}
	}
	if s.OpenSeveral == nil {
		return handles(s.Open(tb, path, o), n)
	}
	all := s.OpenSeveral(tb, path, n, o)
	for i, st := range all {
		all[i] = &handle{Store: st, applyMu: &sync.Mutex{}, close: st.Close}
	}
	return all
}

// handles makes n handles of one store. The last one to be closed closes it.
func handles(s store.Store, n int) (all []store.Store) {
	var applying sync.Mutex
	var open atomic.Int64
	open.Store(int64(n))
	for range n {
		all = append(all, &handle{Store: s, applyMu: &applying, close: func() error {
			if open.Add(-1) > 0 {
				return nil
			}
			return s.Close()
		}})
	}
	return all
}

// Apply applies a batch, and a second time when the first answer is lost.
func (h *handle) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	h.applyMu.Lock()
	defer h.applyMu.Unlock()
	synced, err := h.Store.Apply(ctx, b)
	if err != nil || !h.loseNext.Swap(false) {
		return synced, err
	}
	return h.Store.Apply(ctx, b)
}

func (h *handle) Close() error { return h.close() }

// commitAt commits a batch at one of the stores. Any goroutine may call it.
func (w *harness) commitAt(n int, b *store.Batch) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the store panicked: %v", p)
		}
	}()
	w.prepare(b)
	return store.Commit(w.ctx, w.stores[n], b)
}

// tryAt commits the ops as one batch at one of the stores. Any goroutine may call it.
func (w *harness) tryAt(n int, ops ...any) (*store.Batch, error) {
	b := batchOf(ops...)
	return b, w.commitAt(n, b)
}

// atEveryStore calls work for every store at the same time.
func (w *harness) atEveryStore(work func(n int) error) {
	w.Helper()
	errs := make([]error, len(w.stores))
	start := make(chan struct{})
	var working sync.WaitGroup
	for n := range w.stores {
		working.Go(func() {
			<-start
			errs[n] = work(n)
		})
	}
	close(start)
	working.Wait()
	for n, err := range errs {
		if err != nil {
			w.Fatalf("store %d: %v", n, err)
		}
	}
}

// eachStore runs the check for each store.
func (w *harness) eachStore(check func()) {
	w.Helper()
	for n := range w.stores {
		w.use(n)
		check()
	}
	w.use(0)
}

// rounds is how many times two ops race.
const rounds = 8

// race commits each op, or list of ops, as a batch at its own store, and returns the batches. In
// half of the rounds the batches are committed at the same time, in the others one after the
// other, in either order. The stores change with the rounds too.
func (w *harness) race(round int, ops ...any) (raced []*store.Batch) {
	w.Helper()
	for _, op := range ops {
		if group, ok := op.([]any); ok {
			raced = append(raced, batchOf(group...))
		} else {
			raced = append(raced, batchOf(op))
		}
	}
	shift := round / 4
	if round%4 > 1 {
		w.atEveryStore(func(n int) error {
			if n >= len(raced) {
				return nil
			}
			return w.commitAt(n, raced[(n+shift)%len(raced)])
		})
		return raced
	}
	for i := range raced {
		i = (i + round) % len(raced)
		if err := w.commitAt((i+shift)%len(raced), raced[i]); err != nil {
			w.Fatalf("batch %d: %v", i, err)
		}
	}
	return raced
}

// opsOrder returns which of two raced ops is committed first; -1 for both at the same time.
func opsOrder(round int) int {
	if round%4 > 1 {
		return -1
	}
	return round % 2
}

// wantOneApplied checks that exactly one of the raced ops applied, and that the others were
// refused with the code. It returns the one that applied.
func wantOneApplied[Op any](w *harness, code job.Code, ops ...Op) (won Op) {
	w.Helper()
	n := 0
	for _, op := range ops {
		switch err := errOf(op); {
		case err == nil:
			won, n = op, n+1
		case job.CodeOf(err) != code:
			w.Errorf("%T was refused with %v, want the code %q", op, err, code)
		}
	}
	if n != 1 {
		w.Fatalf("of %d ops that exclude each other %d applied", len(ops), n)
	}
	return won
}
