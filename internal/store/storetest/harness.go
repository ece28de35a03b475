package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// failer is how a rule fails: a test, or one run of the model.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// harness is a place with one store or several under test, with a clock that only the test
// moves and ids that are the same in every run.
type harness struct {
	failer
	ctx     context.Context
	store   store.Store          // the one that is in use; see use
	stores  []store.Store        // all that are open on the place
	open    func() []store.Store // opens the same place again
	another func() *harness      // makes another world of the same kind

	limits map[string]job.Limits // of the batches to come

	micros atomic.Int64  // the clock; read by the store from any goroutine
	ids    atomic.Uint64 // how many ids and tokens were made

	mu sync.Mutex
	// What was named in commits, so that stored can ask for it all. Commits of several
	// goroutines write it, guarded by mu.
	owners  []job.Owner
	sets    []store.RowSet
	tallies []ownedKey
	keys    []ownedKey
}

type ownedKey struct {
	owner job.Owner
	key   string
}

func newHarness(tb testing.TB, s Suite) *harness { return newHarnessOf(tb, s, 1) }

// newHarnessOf makes a world with so many stores on its place.
func newHarnessOf(tb testing.TB, s Suite, stores int) *harness {
	w := newHarnessAt(tb, tb, s, filepath.Join(tb.TempDir(), "store"), stores)
	w.another = func() *harness { return newHarnessOf(tb, s, stores) }
	tb.Cleanup(func() { _ = w.close() })
	return w
}

// newHarnessAt opens stores that the caller closes, and whose rules fail f.
func newHarnessAt(tb testing.TB, f failer, s Suite, place string, stores int) *harness {
	w := &harness{failer: f, ctx: context.Background()}
	w.micros.Store(time.Date(2031, 5, 7, 11, 0, 0, 0, time.UTC).UnixMicro())
	w.open = func() []store.Store {
		return s.openSeveral(tb, place, stores, Options{Clock: w.now, AtEnd: atEnd})
	}
	w.stores = w.open()
	w.use(0)
	return w
}

// use makes the world commit to and read from one of its stores.
func (w *harness) use(n int) { w.store = w.stores[n] }

func (w *harness) close() (err error) {
	for _, s := range w.stores {
		err = errors.Join(err, s.Close())
	}
	return err
}

func (w *harness) now() time.Time       { return time.UnixMicro(w.micros.Load()).UTC() }
func (w *harness) pass(d time.Duration) { w.micros.Add(d.Microseconds()) }

// reopen closes the stores and opens what they left.
func (w *harness) reopen() {
	w.Helper()
	if err := w.close(); err != nil {
		w.Fatalf("close: %v", err)
	}
	w.stores = w.open()
	w.use(0)
}

// id makes ids that grow, as real ones do.
func (w *harness) id() (id job.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(w.now().UnixMilli())<<16|0x7000)
	binary.BigEndian.PutUint64(id[8:], 1<<63|w.ids.Add(1))
	return id
}

func (w *harness) token() (t job.Token) {
	binary.BigEndian.PutUint64(t[:], 0x746f6b656e)
	binary.BigEndian.PutUint64(t[8:], w.ids.Add(1))
	return t
}

// commit applies a batch whose ops may be refused.
func (w *harness) commit(b *store.Batch) {
	w.Helper()
	if err := w.commitTo(b); err != nil {
		w.Fatalf("the commit failed: %v", err)
	}
}

// commitTo commits a batch that may fail, but must not make the store panic.
func (w *harness) commitTo(b *store.Batch) error {
	w.Helper()
	w.prepare(b)
	defer func() {
		if p := recover(); p != nil {
			w.Fatalf("the store panicked: %v", p)
		}
	}()
	return store.Commit(w.ctx, w.store, b)
}

// prepare notes what the batch names, and gives it the limits.
func (w *harness) prepare(b *store.Batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remember(b)
	if b.Limits == nil {
		b.Limits = maps.Clone(w.limits)
	}
}

// try commits the ops as one batch.
func (w *harness) try(ops ...any) *store.Batch {
	w.Helper()
	b := batchOf(ops...)
	w.commit(b)
	return b
}

// do commits the ops as one batch, each of which must apply.
func (w *harness) do(ops ...any) *store.Batch {
	w.Helper()
	b := w.try(ops...)
	for _, op := range ops {
		if err := errOf(op); err != nil {
			w.Fatalf("%T was refused: %v", op, err)
		}
	}
	return b
}

// refused commits each op alone: it must be refused with the code and change
// nothing that any read tells.
func (w *harness) refused(code job.Code, ops ...any) {
	w.Helper()
	for _, op := range ops {
		w.remember(batchOf(op))
		before := w.stored()
		w.try(op)
		w.coded(code, errOf(op))
		w.sameStored("a refused op changed the store", before, w.stored())
	}
}

// coded checks the code of an error that must be a [job.Error].
func (w *harness) coded(code job.Code, err error) {
	w.Helper()
	var e *job.Error
	if !errors.As(err, &e) || e.Code != code {
		w.Errorf("got %v, want an error of the code %q", err, code)
	}
}

// equal is the plainest of checks.
func equal[T comparable](w *harness, what string, got, want T) {
	w.Helper()
	if got != want {
		w.Errorf("%s is %v, want %v", what, got, want)
	}
}

// at checks a time.
func (w *harness) at(what string, got, want time.Time) {
	w.Helper()
	if !got.Equal(want) {
		w.Errorf("%s is %v, want %v", what, got, want)
	}
}

// remember notes what the batch names.
func (w *harness) remember(b *store.Batch) {
	for _, op := range b.Submits {
		note(&w.owners, op.Job.Owner)
		if op.Idempotency != nil {
			note(&w.keys, ownedKey{op.Job.Owner, op.Idempotency.Key})
		}
		for _, ref := range op.Job.Refs {
			note(&w.sets, store.RowSet{Owner: op.Job.Owner, Kind: endKind, Parent: refParent(ref)})
		}
		if op.Job.Tally != "" {
			note(&w.tallies, ownedKey{op.Job.Owner, op.Job.Tally})
		}
		w.rememberRows(op.Rows)
	}
	for _, op := range b.Writes {
		w.rememberRows(op.Rows)
	}
}

func (w *harness) rememberRows(rows []store.Row) {
	for i := range rows {
		note(&w.sets, rows[i].Set())
	}
}

func note[T comparable](list *[]T, v T) {
	for _, known := range *list {
		if known == v {
			return
		}
	}
	*list = append(*list, v)
}
