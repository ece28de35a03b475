package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/runner"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// outageHarness is an engine with a runner. The test delays the commits and reads of its store.
// It lives in a synctest bubble.
type outageHarness struct {
	*Engine
	t          *testing.T
	stop       func()
	syncDelay  atomic.Int64 // duration of a sync, in ns
	applyDelay atomic.Int64 // duration of an apply, in ns
	readDelay  atomic.Int64 // duration of a read of the sweep, in ns
	readsFail  atomic.Bool  // whether the reads of the sweep fail
	refuses    atomic.Bool  // whether the store refuses each commit
	clockAhead atomic.Int64 // how far the store's clock seems to be ahead, in ns

	logged strings.Builder

	sweptLeases atomic.Int32 // number of lapsed leases that were swept
	attempts    atomic.Int32 // number of attempts that began
	overlaps    atomic.Int32 // number of attempts that began while the job was already running
	mu          sync.Mutex
	runs        map[job.ID]int
}

func newOutageHarness(t *testing.T, lease, renewEvery time.Duration) *outageHarness {
	t.Helper()
	inner := NewTestStore(t, sqlite.Options{Unsynced: true})
	h := &outageHarness{t: t, runs: map[job.ID]int{}}
	s := faulty.New(inner, faulty.Plan{
		Commit: func(int, *store.Batch) faulty.Fault {
			f := faulty.Fault{Before: sleepFor(&h.applyDelay), After: sleepFor(&h.syncDelay)}
			if h.refuses.Load() {
				f.Step = faulty.BeforeCommit
			}
			return f
		},
		Read:  h.read,
		Clock: func(now time.Time) time.Time { return now.Add(time.Duration(h.clockAhead.Load())) },
	})
	q := testQueue(8, 9, job.Timeouts{Lease: lease, CancelGrace: 10 * time.Second})
	e, err := New(t.Context(), Config{Store: s, Queues: []Queue{q}, RenewEvery: renewEvery, Observer: sweepCounter{n: &h.sweptLeases}, Log: slog.New(slog.NewTextHandler(&h.logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	h.Engine = e
	stop := RunInBackground(h.Run)
	h.stop = func() { stop(); _ = s.Close() }
	t.Cleanup(func() { h.stop() })
	return h
}

// sleepFor returns a function that sleeps for the current value of d.
func sleepFor(d *atomic.Int64) func() {
	return func() { time.Sleep(time.Duration(d.Load())) }
}

func (h *outageHarness) read(method string) error {
	if method != "Running" && method != "NextDue" {
		return nil
	}
	time.Sleep(time.Duration(h.readDelay.Load()))
	if h.readsFail.Load() {
		return errors.New("the database is away")
	}
	return nil
}

// sweepCounter counts the lapsed leases that were swept.
type sweepCounter struct {
	noObserver
	n *atomic.Int32
}

func (l sweepCounter) LeaseSwept(cancelled bool) {
	if !cancelled {
		l.n.Add(1)
	}
}

// startRunner starts a runner whose jobs take the given time. It runs until the engine is
// stopped.
func (h *outageHarness) startRunner(renewEvery, duration time.Duration) {
	r := runner.New(runner.Config{
		Source: h.Engine, Queue: "q", Slots: 8, Name: "w", RenewEvery: renewEvery, Grace: time.Millisecond,
		Executor: executorFunc(func(ctx context.Context, task exec.Task) error { return h.run(ctx, task.Job.ID, duration) }),
	})
	stopRunner, stopEngine := RunInBackground(r.Run), h.stop
	h.stop = func() { stopRunner(); stopEngine() }
	synctest.Wait()
}

func (h *outageHarness) run(ctx context.Context, id job.ID, duration time.Duration) error {
	h.attempts.Add(1)
	h.countRunning(id, 1)
	defer h.countRunning(id, -1)
	select {
	case <-time.After(duration):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *outageHarness) countRunning(id job.ID, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runs[id] += n; h.runs[id] > 1 {
		h.overlaps.Add(1)
	}
}

// executorFunc is a function as an executor.
type executorFunc func(ctx context.Context, t exec.Task) error

func (executorFunc) Kind() string       { return "test" }
func (executorFunc) TakesFiles() bool   { return false }
func (executorFunc) Check([]byte) error { return nil }

func (f executorFunc) Execute(ctx context.Context, t exec.Task, _ exec.Sink) error { return f(ctx, t) }

func (h *outageHarness) submit() (err error) {
	_, _, err = h.Submit(context.Background(), Request{Queue: "q"})
	return err
}

// One sync takes longer than a renewal interval. The worker renews on time, so it keeps its job,
// at whatever time in the interval the job was delivered.
func TestSlowSyncSweepsNoRenewedLease(t *testing.T) {
	t.Parallel()
	step := 150 * time.Millisecond
	if testing.Short() {
		step *= 4
	}
	for at := 100 * time.Millisecond; at < 2*time.Second; at += step {
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newOutageHarness(t, 6*time.Second, 2*time.Second)
				h.startRunner(2*time.Second, 12*time.Second)
				time.Sleep(at)
				h.syncDelay.Store(int64(3250 * time.Millisecond))
				go func() { _ = h.submit() }()
				time.Sleep(200 * time.Millisecond)
				h.syncDelay.Store(0)
				time.Sleep(30 * time.Second)
				if h.sweptLeases.Load() > 0 || h.attempts.Load() != 1 {
					t.Errorf("%d leases were swept, and the job of a healthy worker began %d times", h.sweptLeases.Load(), h.attempts.Load())
				}
			})
		})
	}
}

// Commits, syncs and reads are slow or fail at random. No lease is swept while its worker
// renews, and no job has two attempts at the same time.
func TestOutagesSweepNoRenewedLease(t *testing.T) {
	t.Parallel()
	for _, seed := range Seeds(t, 8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { runRandomOutages(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func runRandomOutages(t *testing.T, r *rand.Rand) {
	lease := []time.Duration{time.Second, 2 * time.Second, 6 * time.Second, 30 * time.Second}[r.IntN(4)]
	renewEvery := 10 * time.Second
	if r.IntN(2) == 0 {
		renewEvery = lease / 3
	}
	h := newOutageHarness(t, lease, renewEvery)
	h.startRunner(renewEvery, 40*time.Second)
	upTo := func(limit time.Duration) time.Duration { return time.Duration(r.Int64N(int64(limit))) }
	for range 30 {
		for range r.IntN(3) {
			go func() { _ = h.submit() }()
		}
		time.Sleep(upTo(3 * lease))
		switch r.IntN(6) {
		case 0: // too short to count as an outage
			h.syncDelay.Store(int64(upTo(900 * time.Millisecond)))
		case 1:
			h.syncDelay.Store(int64(upTo(2 * lease)))
		case 2:
			h.applyDelay.Store(int64(upTo(2 * lease)))
		case 3:
			h.readDelay.Store(int64(upTo(2 * lease)))
		case 4:
			h.readsFail.Store(true)
		}
		time.Sleep(upTo(3 * lease))
		h.syncDelay.Store(0)
		h.applyDelay.Store(0)
		h.readDelay.Store(0)
		h.readsFail.Store(false)
	}
	time.Sleep(2 * time.Minute)
	if h.sweptLeases.Load() > 0 || h.overlaps.Load() > 0 {
		t.Errorf("leases of %v, renewed each %v: %d were swept from a healthy worker, and %d attempts overlapped", lease, renewEvery, h.sweptLeases.Load(), h.overlaps.Load())
	}
}

// After an outage, the lease of a dead worker is swept once two renewal intervals have passed.
func TestDeadWorkersLeaseIsSweptTwoIntervalsAfterOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newOutageHarness(t, 6*time.Second, 2*time.Second)
		h.Consume(job.Worker{Name: "dead", Queue: "q", Slots: 1, Deliver: func(job.Claimed) {}})
		if err := h.submit(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Second)
		want := int32(1)
		if got := h.sweptLeases.Load(); got != want {
			t.Fatalf("%d leases of a dead worker were swept, want 1", got)
		}
		time.Sleep(2500 * time.Millisecond)
		h.readsFail.Store(true)
		time.Sleep(20 * time.Second) // the lease of the second attempt has long lapsed
		h.readsFail.Store(false)
		time.Sleep(3900 * time.Millisecond)
		if got := h.sweptLeases.Load(); got != want {
			t.Fatalf("%d leases were swept within two intervals of the outage, want %d", got, want)
		}
		time.Sleep(2100 * time.Millisecond)
		if got := h.sweptLeases.Load(); got != want+1 {
			t.Fatalf("%d leases were swept, want %d", got, want+1)
		}
	})
}

// If the reads of a sweep fail or hang, that counts as an outage, because renewals may have
// failed too.
func TestFailedReadsDelaySweep(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		begin, end func(h *outageHarness)
	}{
		"fail": {func(h *outageHarness) { h.readsFail.Store(true) }, func(h *outageHarness) { h.readsFail.Store(false) }},
		"hang": {func(h *outageHarness) { h.readDelay.Store(int64(4 * time.Second)) }, func(h *outageHarness) { h.readDelay.Store(0) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newOutageHarness(t, 3*time.Second, time.Second)
				jobs := make(chan job.Claimed, 9)
				h.Consume(job.Worker{Name: "w", Queue: "q", Slots: 1, Deliver: func(c job.Claimed) { jobs <- c }})
				if err := h.submit(); err != nil {
					t.Fatal(err)
				}
				claimed := <-jobs
				time.Sleep(2 * time.Second)
				leases := []job.Lease{claimed.Lease()}
				if err := h.Renew(context.Background(), leases)[0]; err != nil {
					t.Fatal(err)
				}
				c.begin(h)
				time.Sleep(4 * time.Second)
				c.end(h)
				time.Sleep(1900 * time.Millisecond)
				if err := h.Renew(context.Background(), leases)[0]; err != nil {
					t.Errorf("a renewal within two intervals of the outage: %v", err)
				}
			})
		})
	}
}

// While a sync hangs, new work is refused within about a second: arriving ops, and waiting ops
// that were not handed to the store. Ops that were handed to the store are answered once their
// outcome is known. Then new work is accepted again.
func TestHangingSyncRefusesNewWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newOutageHarness(t, time.Minute, 10*time.Second)
		synctest.Wait() // the first commits of the engine are on disk
		h.syncDelay.Store(int64(30 * time.Second))
		type answer struct {
			err  error
			took time.Duration
		}
		ask := func(f func() error) chan answer {
			c, began := make(chan answer, 1), time.Now()
			go func() { err := f(); c <- answer{err, time.Since(began)} }()
			synctest.Wait()
			return c
		}
		applied := ask(h.submit)
		waiting := []chan answer{
			ask(h.submit),
			ask(func() error { return h.Write(context.Background(), store.Row{Kind: "k", Parent: "p", ID: "i"}) }),
			ask(func() error {
				_, err := h.SubmitMany(context.Background(), []Request{{Queue: "q"}, {Queue: "q"}}, true)
				return err
			}),
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		for i, c := range waiting {
			select {
			case a := <-c:
				var refused *job.Error
				if !errors.As(a.err, &refused) || refused.Code != job.Unavailable || refused.RetryAfter == 0 || a.took > 1300*time.Millisecond {
					t.Errorf("waiting op %d is answered %v after %v", i, a.err, a.took)
				}
			default:
				t.Errorf("waiting op %d is not answered", i)
			}
		}
		if a := <-ask(h.submit); job.CodeOf(a.err) != job.Unavailable || a.took != 0 {
			t.Errorf("a new submit is answered %v after %v", a.err, a.took)
		}
		if err := h.CheckCapacity("q", 1); job.CodeOf(err) != job.Unavailable {
			t.Errorf("before a body is received: %v", err)
		}
		select {
		case a := <-applied:
			t.Fatalf("an op that is not on disk yet is answered %v", a.err)
		default:
		}
		h.syncDelay.Store(0)
		if a := <-applied; a.err != nil || a.took != 30*time.Second {
			t.Errorf("an op that was handed to the store is answered %v after %v", a.err, a.took)
		}
		if a := <-ask(h.submit); a.err != nil {
			t.Errorf("after the sync has returned a submit is answered %v", a.err)
		}
		h.queues["q"].mu.Lock()
		asked := h.queues["q"].readySubmits
		h.queues["q"].mu.Unlock()
		if asked != 0 {
			t.Errorf("%d submits are still counted as pending", asked)
		}
	})
}

// While the store certainly stores nothing, new work that was handed to it is refused after a
// second too, whatever else is in its batch. What cannot be repeated waits for the end.
func TestStoreThatRefusesCommitsRefusesNewWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newOutageHarness(t, time.Minute, 10*time.Second)
		kept, _, err := h.Submit(context.Background(), Request{Queue: "q"})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ask := func(f func() error) chan error {
			c := make(chan error, 1)
			go func() { c <- f() }()
			synctest.Wait()
			return c
		}
		// While one batch is applied, the others gather for the next one.
		h.applyDelay.Store(int64(10 * time.Millisecond))
		stored := ask(h.submit)
		refused := []chan error{ask(h.submit), ask(func() error {
			return h.Write(context.Background(), store.Row{Kind: "k", Parent: "p", ID: "i"})
		}), ask(func() error {
			items, err := h.SubmitMany(context.Background(), []Request{{Queue: "q"}, {Queue: "q"}}, true)
			if err == nil {
				err = errors.Join(items[0].Err, items[1].Err)
			}
			return err
		})}
		cancelled := ask(func() error { _, err := h.Cancel(context.Background(), job.Owner{}, kept.Job.ID); return err })
		h.refuses.Store(true)
		h.applyDelay.Store(0)
		if err := <-stored; err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		for i, c := range refused {
			select {
			case err := <-c:
				var r *job.Error
				if !errors.As(err, &r) || r.Code != job.Unavailable || r.RetryAfter == 0 {
					t.Errorf("op %d is answered %v", i, err)
				}
			default:
				t.Errorf("op %d is not answered", i)
			}
		}
		select {
		case err := <-cancelled:
			t.Errorf("the cancel is answered %v", err)
		default:
		}
		h.refuses.Store(false)
		if err := <-cancelled; err != nil {
			t.Errorf("after the outage the cancel is answered %v", err)
		}
		if err := <-ask(h.submit); err != nil {
			t.Errorf("after the outage a submit is answered %v", err)
		}
		if q, err := h.Queues(context.Background()); err != nil || q[0].Counts.Cancelled != 1 || q[0].Counts.Queued != 2 {
			t.Errorf("the queues are %+v, %v", q, err)
		}
		q := h.queues["q"]
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.readySubmits != 0 || q.pendingBytes != 0 {
			t.Errorf("%d submits and %d bytes are still counted as pending", q.readySubmits, q.pendingBytes)
		}
	})
}

// The store is away while its reads fail, without any write, and is back with the first that
// succeeds. The log says both, and does not repeat itself each second.
func TestStoreIsAwayWhileItsReadsFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newOutageHarness(t, time.Minute, 10*time.Second)
		synctest.Wait()
		for _, away := range []bool{false, true, false} {
			h.readsFail.Store(away)
			time.Sleep(time.Minute)
			if h.StoreAway() != away {
				t.Errorf("the reads fail: %v; the store is away: %v", away, !away)
			}
		}
		synctest.Wait()
		// The refresh and the sweep read.
		if failed, over := strings.Count(h.logged.String(), "will be tried again"), strings.Count(h.logged.String(), "an outage is over"); failed < 2 || failed > 14 || over != 2 {
			t.Errorf("%d lines say that reads fail, and %d that they do not any more:\n%s", failed, over, &h.logged)
		}
	})
}

// Reads that hang make the store as absent as reads that fail.
func TestStoreIsAwayWhileItsReadsHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newOutageHarness(t, time.Minute, 10*time.Second)
		synctest.Wait()
		h.readDelay.Store(int64(time.Minute))
		time.Sleep(10 * time.Second)
		if !h.StoreAway() {
			t.Error("the store is not away")
		}
		h.readDelay.Store(0)
		time.Sleep(time.Minute)
		if h.StoreAway() {
			t.Error("the store is still away")
		}
	})
}
