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

// failer reports failures: a test, or one run of the model.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// harness is one or several open stores that share one database. Only the test moves their
// clock, and ids are the same in every run.
type harness struct {
	failer
	ctx     context.Context
	store   store.Store          // the current store; see use
	stores  []store.Store        // all stores that share the database
	open    func() []store.Store // opens the same database again
	another func() *harness      // makes another harness of the same kind

	limits map[string]job.Limits // of the next batches
	kept   int64                 // the bound of the next batches, [store.Batch.MaxKept]
	room   map[string]int        // of the next batches

	micros atomic.Int64  // the clock; read by the store from any goroutine
	ids    atomic.Uint64 // how many ids and tokens were made

	mu sync.Mutex
	// Guarded by mu: the names in all commits, so that stored can read everything. Commits of
	// several goroutines add to them.
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

// newHarnessOf makes a harness with n stores that share one database.
func newHarnessOf(tb testing.TB, s Suite, stores int) *harness {
	w := newHarnessAt(tb, tb, s, filepath.Join(tb.TempDir(), "store"), stores)
	w.another = func() *harness { return newHarnessOf(tb, s, stores) }
	tb.Cleanup(func() { _ = w.close() })
	return w
}

// newHarnessAt opens stores that the caller closes. Failures are reported to f.
func newHarnessAt(tb testing.TB, f failer, s Suite, path string, stores int) *harness {
	w := &harness{failer: f, ctx: context.Background()}
	w.micros.Store(time.Date(2031, 5, 7, 11, 0, 0, 0, time.UTC).UnixMicro())
	w.open = func() []store.Store {
		return s.openSeveral(tb, path, stores, Options{Clock: w.now, AtEnd: atEnd})
	}
	w.stores = w.open()
	w.use(0)
	return w
}

// use sets the current store.
func (w *harness) use(n int) { w.store = w.stores[n] }

func (w *harness) close() (err error) {
	for _, s := range w.stores {
		err = errors.Join(err, s.Close())
	}
	return err
}

func (w *harness) now() time.Time          { return time.UnixMicro(w.micros.Load()).UTC() }
func (w *harness) advance(d time.Duration) { w.micros.Add(d.Microseconds()) }

// reopen closes the stores and opens them again.
func (w *harness) reopen() {
	w.Helper()
	if err := w.close(); err != nil {
		w.Fatalf("close: %v", err)
	}
	w.stores = w.open()
	w.use(0)
}

// id makes an id that sorts after the earlier ones, as real ids do.
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

// commit commits a batch. Its ops may be refused.
func (w *harness) commit(b *store.Batch) {
	w.Helper()
	if err := w.commitTo(b); err != nil {
		w.Fatalf("the commit failed: %v", err)
	}
}

// commitTo commits a batch. It may fail, but the store must not panic.
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

// prepare records the names in the batch, and sets its limits.
func (w *harness) prepare(b *store.Batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rememberNames(b)
	if b.Limits == nil {
		b.Limits = maps.Clone(w.limits)
		b.MaxKept = w.kept
	}
	if b.Room == nil {
		b.Room = w.room
	}
}

// try commits the ops as one batch. They may be refused.
func (w *harness) try(ops ...any) *store.Batch {
	w.Helper()
	b := batchOf(ops...)
	w.commit(b)
	return b
}

// do commits the ops as one batch. Each must apply.
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

// mustRefuse commits each op alone, and checks that it is refused with the code and that no
// read changes.
func (w *harness) mustRefuse(code job.Code, ops ...any) {
	w.Helper()
	for _, op := range ops {
		w.rememberNames(batchOf(op))
		before := w.stored()
		w.try(op)
		w.wantCode(code, errOf(op))
		w.sameStored("a refused op changed the store", before, w.stored())
	}
}

// wantCode checks that err is a [job.Error] with the code.
func (w *harness) wantCode(code job.Code, err error) {
	w.Helper()
	var e *job.Error
	if !errors.As(err, &e) || e.Code != code {
		w.Errorf("got %v, want an error of the code %q", err, code)
	}
}

// wantEqual checks a value.
func wantEqual[T comparable](w *harness, what string, got, want T) {
	w.Helper()
	if got != want {
		w.Errorf("%s is %v, want %v", what, got, want)
	}
}

// wantTime checks a time.
func (w *harness) wantTime(what string, got, want time.Time) {
	w.Helper()
	if !got.Equal(want) {
		w.Errorf("%s is %v, want %v", what, got, want)
	}
}

// rememberNames records the names in the batch.
func (w *harness) rememberNames(b *store.Batch) {
	for _, op := range b.Submits {
		addUnique(&w.owners, op.Job.Owner)
		if op.Idempotency != nil {
			addUnique(&w.keys, ownedKey{op.Job.Owner, op.Idempotency.Key})
		}
		for _, ref := range op.Job.Refs {
			addUnique(&w.sets, store.RowSet{Owner: op.Job.Owner, Kind: endKind, Parent: refParent(ref)})
		}
		if op.Job.Tally != "" {
			addUnique(&w.tallies, ownedKey{op.Job.Owner, op.Job.Tally})
		}
		w.rememberRows(op.Rows)
	}
	for _, op := range b.Writes {
		w.rememberRows(op.Rows)
	}
}

func (w *harness) rememberRows(rows []store.Row) {
	for i := range rows {
		addUnique(&w.sets, rows[i].Set())
	}
}

func addUnique[T comparable](list *[]T, v T) {
	for _, known := range *list {
		if known == v {
			return
		}
	}
	*list = append(*list, v)
}
