package engine_test

import (
	"context"
	"errors"
	"flag"
	"io"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

func TestMain(m *testing.M) {
	// Much of a test's time is spent waiting for the disk, and its heap is small.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8")
	}
	debug.SetGCPercent(400)
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

var local = job.Owner{User: "local"}

// policy is the policy of the test queues.
func policy() job.Policy {
	return job.Policy{
		Timeouts: job.Timeouts{Lease: time.Minute, CancelGrace: time.Minute},
		Retry:    job.Retry{Backoff: 10 * time.Millisecond, For: time.Minute, AfterOutput: job.RestartAfterOutput},
	}
}

// queues returns a queue "sim" of depth 3 and a queue "wide" of depth 1000.
func queues() []engine.Queue {
	q := engine.Queue{Name: "sim", Executor: "sim", Concurrency: 2, MaxDepth: 3, MaxAttempts: 2, Policy: policy(), Keep: time.Hour, KeepFailed: 2 * time.Hour}
	wide := q
	wide.Name, wide.MaxDepth = "wide", 1000
	return []engine.Queue{q, wide}
}

// openStore opens a store whose commits are synced.
func openStore(t testing.TB, path string) store.Store {
	t.Helper()
	return engine.OpenTestStore(t, path, sqlite.Options{})
}

// openUnsynced opens a store whose commits are not synced, for tests in which syncs do not
// matter and for simulations, which delay the commits themselves.
func openUnsynced(t testing.TB, path string) store.Store {
	t.Helper()
	return engine.OpenTestStore(t, path, sqlite.Options{Unsynced: true})
}

// newStore opens a new store whose commits are not synced.
func newStore(t testing.TB) store.Store {
	t.Helper()
	return openUnsynced(t, filepath.Join(t.TempDir(), "jobs.db"))
}

// harness is an engine over a store, with a worker. The test receives the worker's jobs one by
// one.
type harness struct {
	*engine.Engine
	t      testing.TB
	store  store.Store
	jobs   chan job.Claimed
	orders chan job.Order
	stop   func()
}

// newHarness starts an engine over a new store whose commits are not synced. The tests that
// restart an engine, and those that break commits, sync.
func newHarness(t testing.TB) *harness {
	return startHarness(t, newStore(t))
}

// newFaultyHarness starts an engine over a store with the given faults.
func newFaultyHarness(t *testing.T, p faulty.Plan) (*harness, *faulty.Store) {
	s := faulty.New(newStore(t), p)
	return startHarness(t, s), s
}

// newLimitedHarness returns a harness whose queue sim has the given limits, with a worker of
// eight slots.
func newLimitedHarness(t *testing.T, limit func(q *engine.Queue)) *harness {
	t.Helper()
	q := queues()
	q[0].MaxDepth = 100
	limit(&q[0])
	h := startWithQueues(t, newStore(t), q)
	h.startWorker(8)
	return h
}

// startHarness starts an engine with the default queues. See startWithConfig.
func startHarness(t testing.TB, s store.Store) *harness { return startWithQueues(t, s, queues()) }

// startWithQueues starts an engine with the given queues. See startWithConfig.
func startWithQueues(t testing.TB, s store.Store, q []engine.Queue) *harness {
	t.Helper()
	return startWithConfig(t, engine.Config{Store: s, Queues: q})
}

// startWithConfig starts an engine. It stops the engine and closes the store when the test ends.
func startWithConfig(t testing.TB, c engine.Config) *harness {
	t.Helper()
	c.Alone = true
	e, err := engine.New(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	s := c.Store
	h := &harness{Engine: e, t: t, store: s, jobs: make(chan job.Claimed, 100), orders: make(chan job.Order, 100)}
	stop := engine.RunInBackground(e.Run)
	h.stop = sync.OnceFunc(func() { stop(); _ = s.Close() })
	t.Cleanup(h.stop)
	return h
}

// startWorker starts a worker with the given number of slots. Its jobs go to h.jobs, its orders
// to h.orders.
func (h *harness) startWorker(slots int) {
	h.t.Cleanup(h.Consume(job.Worker{
		Name: "local", Queue: "sim", Slots: slots,
		Deliver: func(c job.Claimed) { h.jobs <- c },
		Order:   func(_ job.Lease, o job.Order) { h.orders <- o },
	}))
}

func (h *harness) submit(r engine.Request) engine.Snapshot {
	h.t.Helper()
	r.Owner, r.Queue = local, "sim"
	snap, _, err := h.Submit(context.Background(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	return snap
}

func (h *harness) finish(c job.Claimed, o job.Outcome) job.State {
	h.t.Helper()
	state, err := h.Finish(context.Background(), c.Lease(), o)
	if err != nil {
		h.t.Fatal(err)
	}
	return state
}

// textEntry returns one text entry of the first attempt.
func textEntry(seq int64, content string) []job.Entry {
	return []job.Entry{{Seq: seq, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte(content)}}
}

// readAll reads a watch to its end. It returns the text and the final state, joined.
func readAll(w *engine.Watch) string {
	var read strings.Builder
	for {
		u, err := w.Next(context.Background())
		if errors.Is(err, io.EOF) {
			return read.String()
		}
		if err != nil {
			return err.Error()
		}
		for _, e := range u.Entries {
			read.Write(e.Data)
		}
		if u.Job.State.Ended() {
			read.WriteString(" " + u.Job.State.String())
		}
	}
}

// nextJob waits for a job, at most as long as a change by another process may take.
func (h *harness) nextJob(what string) (c job.Claimed) {
	h.t.Helper()
	select {
	case c = <-h.jobs:
	case <-time.After(pollBound):
		h.t.Fatalf("%s: no job was delivered within %s", what, pollBound)
	}
	return c
}

// expectNoJob fails the test if the worker receives a job.
func (h *harness) expectNoJob(what string) {
	h.t.Helper()
	select {
	case <-h.jobs:
		h.t.Fatalf("%s: a job was delivered", what)
	case <-time.After(pollBound):
	}
}

func (h *harness) submitWithKey(key string) engine.Snapshot {
	h.t.Helper()
	return h.submit(engine.Request{Key: key, Input: []byte(key)})
}

// nextJobs returns the next n jobs that the worker receives.
func (h *harness) nextJobs(n int) (claims []job.Claimed) {
	h.t.Helper()
	for range n {
		claims = append(claims, <-h.jobs)
	}
	return claims
}

// expectNoMoreJobs fails the test if the worker receives another job. It makes a write and waits
// for the answer, because the jobs of earlier commits are delivered before that answer.
func (h *harness) expectNoMoreJobs() {
	h.t.Helper()
	if _, err := h.Queues(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	if err := h.Write(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	if len(h.jobs) > 0 {
		h.t.Fatalf("a job of %s was delivered", (<-h.jobs).Job.Key)
	}
}

// expectHeldBackBy checks the reason why a job does not start.
func (h *harness) expectHeldBackBy(what string, id job.ID, want job.HeldBackBy) {
	h.t.Helper()
	s, err := h.Get(h.t.Context(), local, id)
	if err != nil {
		h.t.Fatal(err)
	}
	if s.HeldBackBy != want {
		h.t.Errorf("%s: a job that is %s is held back by %q, want %q", what, s.State, s.HeldBackBy, want)
	}
}

// expectQueueHeldBackBy checks the reason why the jobs of the queue do not start.
func (h *harness) expectQueueHeldBackBy(what string, want job.HeldBackBy) {
	h.t.Helper()
	all, err := h.Queues(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	if got := all[0].HeldBackBy; got != want {
		h.t.Errorf("%s: the queue is held back by %q, want %q", what, got, want)
	}
}

func (h *harness) setPaused(on bool) {
	h.t.Helper()
	if _, err := h.SetPaused(h.t.Context(), "sim", on); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) submitMany(list []engine.Request, atomic bool) []engine.SubmitResult {
	h.t.Helper()
	out, err := h.SubmitMany(context.Background(), list, atomic)
	if err != nil || len(out) != len(list) {
		h.t.Fatalf("%d answers to %d requests, %v", len(out), len(list), err)
	}
	return out
}

// startWatch watches a job and reads the first update.
func (h *harness) startWatch(id job.ID) *watcher {
	h.t.Helper()
	w, err := h.Watch(context.Background(), local, id, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	got := &watcher{t: h.t.(*testing.T), watch: w}
	got.next(time.Second)
	return got
}

// expectOrder waits for an order to the worker.
func (h *harness) expectOrder(want job.Order, bound time.Duration) {
	h.t.Helper()
	select {
	case o := <-h.orders:
		if o != want {
			h.t.Errorf("the worker was ordered %v, want %v", o, want)
		}
	case <-time.After(bound):
		h.t.Fatalf("the worker got no order within %s", bound)
	}
}

// expectFreeSlots fails the test unless a new job starts in each of these slots.
func (h *harness) expectFreeSlots(slots int) {
	h.t.Helper()
	for range slots {
		h.submit(engine.Request{})
	}
	for i := range slots {
		select {
		case <-h.jobs:
		case <-time.After(pollBound):
			h.t.Fatalf("of %d slots that should be free %d are used", slots, i)
		}
	}
}
