package engine_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// silentBus is a bus that loses every notice.
type silentBus struct{}

func (silentBus) Join(func(bus.Notice)) bus.Member { return silentBus{} }

func (silentBus) Publish(bus.Notice) {}

func (silentBus) Leave() {}

// forEachBus runs a test of two engines on one store once for each kind of bus: one that works,
// one that loses every notice, and one that loses, doubles and delays notices. bound is the
// maximum time within which one process must react to the other.
func forEachBus(t *testing.T, test func(t *testing.T, a, b *harness, bound time.Duration)) {
	for name, c := range map[string]struct {
		bus   bus.Bus
		bound time.Duration
	}{
		"with notices":          {&bus.Local{}, 100 * time.Millisecond},
		"with all notices lost": {silentBus{}, pollBound},
		"with notices that are lost, doubled or late": {&faulty.Bus{Inner: &bus.Local{}, LostPercent: 40, DoubledPercent: 30, LatePercent: 50, MaxDelay: 10 * time.Second}, pollBound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withSharedStore(t, func(t *testing.T, s *sharedStore) {
				q := queues()
				for i := range q {
					q[i].Policy.Timeouts.Abandon = job.MinAbandon
				}
				start := func() *harness { return startWithConfig(t, engine.Config{Store: s, Queues: q, Bus: c.bus}) }
				a, b := start(), start()
				test(t, a, b, c.bound)
			})
		})
	}
}

// watcher collects the updates of a watch.
type watcher struct {
	t     *testing.T
	watch *engine.Watch
	text  string
	last  job.State
}

// next reads the next update. It fails the test if none arrives in time.
func (w *watcher) next(bound time.Duration) error {
	w.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), bound)
	defer stop()
	u, err := w.watch.Next(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		w.t.Fatalf("after %q and %s nothing came within %s", w.text, w.last, bound)
	}
	if err == nil {
		w.last = u.Job.State
		for _, e := range u.Entries {
			w.text += string(e.Data)
		}
	}
	return err
}

// waitFor reads updates until it has the given text and state.
func (w *watcher) waitFor(bound time.Duration, text string, state job.State) {
	w.t.Helper()
	for w.text != text || w.last != state {
		if err := w.next(bound); err != nil {
			w.t.Fatalf("after %q and %s: %v", w.text, w.last, err)
		}
	}
}

func TestWatchFollowsJobOfOtherProcess(t *testing.T) {
	t.Parallel()
	forEachBus(t, func(t *testing.T, a, b *harness, bound time.Duration) {
		snap := a.submit(engine.Request{})
		w := b.startWatch(snap.ID)
		defer w.watch.Close()
		w.waitFor(bound, "", job.Queued)
		a.startWorker(1)
		c := <-a.jobs
		w.waitFor(bound, "", job.Running)
		content := ""
		for i, piece := range []string{"one ", "two ", "three"} {
			if err := a.Append(t.Context(), c.Lease(), textEntry(int64(i+1), piece), nil); err != nil {
				t.Fatal(err)
			}
			content += piece
			w.waitFor(bound, content, job.Running)
		}
		a.finish(c, job.Outcome{})
		w.waitFor(bound, "one two three", job.Succeeded)
		if err := w.next(bound); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// Wait in one process returns when the job ends in another.
func TestWaitReturnsWhenJobEndsInOtherProcess(t *testing.T) {
	t.Parallel()
	forEachBus(t, func(t *testing.T, a, b *harness, bound time.Duration) {
		a.startWorker(1)
		snap := a.submit(engine.Request{})
		c := <-a.jobs
		answer := make(chan engine.Snapshot, 1)
		go func() {
			s, _ := b.Wait(context.Background(), local, snap.ID, time.Minute)
			answer <- s
		}()
		time.Sleep(5 * time.Second)
		a.finish(c, job.Outcome{})
		select {
		case s := <-answer:
			if s.State != job.Succeeded {
				t.Errorf("the job is %s", s.State)
			}
		case <-time.After(bound):
			t.Errorf("no answer came within %s", bound)
		}
	})
}

func TestCancelReachesWorkerOfOtherProcess(t *testing.T) {
	t.Parallel()
	forEachBus(t, func(t *testing.T, a, b *harness, bound time.Duration) {
		a.startWorker(1)
		snap := a.submit(engine.Request{})
		c := <-a.jobs
		w := a.startWatch(snap.ID)
		defer w.watch.Close()
		time.Sleep(5 * time.Second)
		if _, err := b.Cancel(t.Context(), local, snap.ID); err != nil {
			t.Fatal(err)
		}
		a.expectOrder(job.OrderCancel, bound)
		if state := a.finish(c, job.Outcome{}); state != job.Cancelled {
			t.Errorf("the job ended as %s", state)
		}
		w.waitFor(bound, "", job.Cancelled)
	})
}

func TestDeleteReachesWorkerOfOtherProcess(t *testing.T) {
	t.Parallel()
	forEachBus(t, func(t *testing.T, a, b *harness, bound time.Duration) {
		a.startWorker(1)
		snap := a.submit(engine.Request{})
		<-a.jobs
		w := a.startWatch(snap.ID)
		defer w.watch.Close()
		time.Sleep(5 * time.Second)
		if err := b.Delete(t.Context(), local, snap.ID); err != nil {
			t.Fatal(err)
		}
		a.expectOrder(job.OrderCancel, bound)
		for {
			if err := w.next(bound); err != nil {
				if job.CodeOf(err) != job.NotFound {
					t.Errorf("the watcher of a deleted job gets %v", err)
				}
				return
			}
		}
	})
}

// A lease is swept by another process. Its worker gets OrderLost, and its slot is free.
func TestLeaseSweptByOtherProcessIsReported(t *testing.T) {
	t.Parallel()
	forEachBus(t, func(t *testing.T, a, b *harness, bound time.Duration) {
		a.startWorker(1)
		snap := a.submit(engine.Request{})
		<-a.jobs // never renewed
		b.startWorker(1)
		time.Sleep(2 * time.Minute)
		a.expectOrder(job.OrderLost, bound)
		for range 2 { // a and b each run one job, because a has a free slot
			b.submit(engine.Request{})
		}
		got := 0
		for got < 2 {
			select {
			case <-a.jobs:
			case <-b.jobs:
			case <-time.After(time.Minute):
				t.Fatalf("%d of 2 free slots are used after %s was lost", got, snap.ID)
			}
			got++
		}
	})
}

// A watcher or a presence in one process prevents another process from abandoning the job. When
// neither is left, one of the processes cancels it.
func TestPresenceKeepsJobOfOtherProcess(t *testing.T) {
	t.Parallel()
	forEachBus(t, func(t *testing.T, a, b *harness, _ time.Duration) {
		watched, present := a.submit(engine.Request{}), a.submit(engine.Request{})
		w := b.startWatch(watched.ID)
		for range 20 {
			time.Sleep(time.Minute)
			if _, err := b.Get(t.Context(), local, present.ID); err != nil {
				t.Fatal(err)
			}
		}
		w.waitFor(pollBound, "", job.Queued)
		for _, id := range []job.ID{watched.ID, present.ID} {
			if s, err := a.store.Job(t.Context(), local, id); err != nil || s.State != job.Queued {
				t.Errorf("a job with a presence is %s, %v", s.State, err)
			}
		}
		w.watch.Close()
		time.Sleep(4 * time.Minute)
		for _, id := range []job.ID{watched.ID, present.ID} {
			if s, err := a.store.Job(t.Context(), local, id); err != nil || s.State != job.Cancelled {
				t.Errorf("a job without a presence is %s, %v", s.State, err)
			}
		}
	})
}

// An attempt that ends through another process frees its slot, even if this process claims the
// job again before it checks its leases.
func TestReleaseByOtherProcessFreesSlot(t *testing.T) {
	t.Parallel()
	forEachBus(t, func(t *testing.T, a, b *harness, _ time.Duration) {
		a.startWorker(3)
		a.submit(engine.Request{})
		c := <-a.jobs
		for range 6 {
			if _, err := b.Finish(t.Context(), c.Lease(), job.Outcome{Released: true}); err != nil {
				t.Fatal(err)
			}
			c = a.nextJob("handed back through another process")
		}
		a.expectFreeSlots(2)
	})
}

// An attempt whose job is deleted and finished through another process frees its slot.
func TestJobRemovedByOtherProcessFreesSlot(t *testing.T) {
	t.Parallel()
	forEachBus(t, func(t *testing.T, a, b *harness, bound time.Duration) {
		a.startWorker(1)
		snap := a.submit(engine.Request{})
		c := <-a.jobs
		if err := b.Delete(t.Context(), local, snap.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Finish(t.Context(), c.Lease(), job.Outcome{}); err != nil {
			t.Fatal(err)
		}
		for o := job.OrderCancel; o != job.OrderLost; { // the delete may be noticed before the end
			select {
			case o = <-a.orders:
			case <-time.After(bound):
				t.Fatal("the worker never learned that its lease is void")
			}
		}
		a.expectFreeSlots(1)
	})
}

// A refused renewal proves that the lease is void, so its slot is free at once.
func TestRefusedRenewalFreesSlot(t *testing.T) {
	t.Parallel()
	forEachBus(t, func(t *testing.T, a, b *harness, _ time.Duration) {
		a.startWorker(1)
		a.submit(engine.Request{})
		c := <-a.jobs
		if _, err := b.Finish(t.Context(), c.Lease(), job.Outcome{}); err != nil {
			t.Fatal(err)
		}
		if err := a.Renew(t.Context(), []job.Lease{c.Lease()})[0]; job.CodeOf(err) != job.LeaseLost {
			t.Errorf("the renewal of a lease that has ended: %v", err)
		}
		if snap := a.submit(engine.Request{}); snap.State != job.Running {
			t.Errorf("with a free slot a job is %s", snap.State)
		}
	})
}

// Output that an attempt wrote through another process counts for the retry decision.
func TestOutputThroughOtherProcessCountsForRetry(t *testing.T) {
	t.Parallel()
	forEachBus(t, func(t *testing.T, a, b *harness, _ time.Duration) {
		p := policy()
		p.Retry.AfterOutput = job.FailAfterOutput
		a.startWorker(1)
		a.submit(engine.Request{Policy: &p})
		c := <-a.jobs
		if err := b.Append(t.Context(), c.Lease(), textEntry(1, "word"), nil); err != nil {
			t.Fatal(err)
		}
		fault := &job.Fault{Code: "flaky", Message: "it broke", Class: job.Retryable}
		if state := a.finish(c, job.Outcome{Fault: fault}); state != job.Failed {
			t.Errorf("an attempt with output failed, and the job is %s", state)
		}
	})
}

// A job with a pending cancel is deleted through another process. Its watcher gets NotFound.
func TestDeleteAfterCancelReachesOtherProcess(t *testing.T) {
	t.Parallel()
	forEachBus(t, func(t *testing.T, a, b *harness, bound time.Duration) {
		a.startWorker(1)
		snap := a.submit(engine.Request{})
		<-a.jobs
		w := a.startWatch(snap.ID)
		defer w.watch.Close()
		if _, err := b.Cancel(t.Context(), local, snap.ID); err != nil {
			t.Fatal(err)
		}
		a.expectOrder(job.OrderCancel, bound)
		time.Sleep(5 * time.Second)
		if err := b.Delete(t.Context(), local, snap.ID); err != nil {
			t.Fatal(err)
		}
		for {
			if err := w.next(bound); err != nil {
				if job.CodeOf(err) != job.NotFound {
					t.Errorf("the follower of a deleted job gets %v", err)
				}
				return
			}
		}
	})
}

// stallingStore is a store whose writes wait while resume is set. Reads continue.
type stallingStore struct {
	store.Store
	resume atomic.Pointer[chan struct{}] // nil lets writes pass
}

func (s *stallingStore) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	if resume := s.resume.Load(); resume != nil {
		<-*resume
	}
	return s.Store.Apply(ctx, b)
}

// A process that only reads cannot know whether renewals are stored. So it writes before it
// sweeps a lease, and does not sweep if the write was slow.
func TestStalledWritesSweepNoLease(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		b := &bus.Local{}
		view := &stallingStore{Store: s}
		q := queues()
		q[0].Policy.Timeouts.Lease = 15 * time.Second
		start := func() *harness {
			return startWithConfig(t, engine.Config{Store: view, Queues: q, Bus: b, RenewEvery: 5 * time.Second})
		}
		worker := start()
		start() // has no worker, so it only reads and sweeps
		worker.startWorker(1)
		worker.submit(engine.Request{})
		c := <-worker.jobs
		renew := func() error { return worker.Renew(context.Background(), []job.Lease{c.Lease()})[0] }
		for range 12 {
			time.Sleep(5 * time.Second)
			if err := renew(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second) // until after the commit of the retention, which would detect the stall
		resume := make(chan struct{})
		view.resume.Store(&resume)
		time.Sleep(18 * time.Second) // the lease has lapsed
		view.resume.Store(nil)
		close(resume)
		time.Sleep(4 * time.Second) // the worker retries within an interval
		if err := renew(); err != nil {
			t.Errorf("the renewal after the writes had stood still: %v", err)
		}
		if j, err := s.Job(t.Context(), local, c.Job.ID); err != nil || j.Attempt != 1 || j.State != job.Running {
			t.Errorf("the job of a healthy worker is %s, attempt %d, %v", j.State, j.Attempt, err)
		}
	})
}
