package engine_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// within is how soon one process does what another has made possible, without a word
// between them.
const pollBound = time.Second

// shared is a store that several engines share, as processes share a database.
type sharedStore struct {
	store.Store
	mu          sync.Mutex
	commits     atomic.Int64
	beforeApply func(*store.Batch) // before it is applied; nil for nobody
	afterApply  func(*store.Batch) // of what is answered; nil for nothing
}

func (s *sharedStore) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits.Add(1)
	if s.beforeApply != nil {
		s.beforeApply(b)
	}
	synced, err := s.Store.Apply(ctx, b)
	if s.afterApply != nil {
		s.afterApply(b)
	}
	return synced, err
}

func (s *sharedStore) Close() error { return nil } // the test closes the store below

// beside runs a test of engines on one store, in time that passes only when all wait.
func withSharedStore(t *testing.T, test func(t *testing.T, s *sharedStore)) {
	synctest.Test(t, func(t *testing.T) {
		s := &sharedStore{Store: newStore(t)}
		defer func() { _ = s.Store.Close() }()
		test(t, s)
	})
}

// gets waits for a job, for as long as another process may need.
func (h *harness) nextJob(what string) (c job.Claimed) {
	h.t.Helper()
	select {
	case c = <-h.jobs:
	case <-time.After(pollBound):
		h.t.Fatalf("%s: no job was given out within %s", what, pollBound)
	}
	return c
}

// getsNothing fails when a job is given out.
func (h *harness) expectNoJob(what string) {
	h.t.Helper()
	select {
	case <-h.jobs:
		h.t.Fatalf("%s: a job was given out", what)
	case <-time.After(pollBound):
	}
}

func TestIdleWorkerGetsJobOfOtherProcess(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		a, b := startHarness(t, s), startHarness(t, s)
		defer a.stop()
		defer b.stop()
		b.startWorker(1)
		time.Sleep(10 * time.Second)
		snap := a.submit(engine.Request{})
		if c := b.nextJob("submitted elsewhere"); c.Job.ID != snap.ID {
			t.Error("another job was given out")
		}
	})
}

// What a process believes of a queue may be out of date: one claim in vain puts it
// right, and is not repeated.
func TestStaleCountsCauseNoBusyLoop(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		a, b := startHarness(t, s), startHarness(t, s)
		defer a.stop()
		defer b.stop()
		b.submit(engine.Request{}) // b counts one queued
		a.startWorker(1)
		a.nextJob("queued")
		before := s.commits.Load()
		b.startWorker(1)
		time.Sleep(10 * time.Second)
		if n := s.commits.Load() - before; n > 2 {
			t.Errorf("with nothing to do two processes made %d commits", n)
		}
	})
}

// Also counts that stay wrong cost no more than a claim a second or two.
func TestWrongCountsCauseNoBusyLoop(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		s.afterApply = func(b *store.Batch) {
			for name, c := range b.Counts {
				c.Queued += 5
				b.Counts[name] = c
			}
		}
		a := startHarness(t, s)
		defer a.stop()
		a.startWorker(1)
		a.submit(engine.Request{})
		a.finish(a.nextJob("submitted"), job.Outcome{})
		before := s.commits.Load()
		time.Sleep(20 * time.Second)
		if n := s.commits.Load() - before; n > 40 {
			t.Errorf("in 20 s a process made %d commits", n)
		}
	})
}

func TestScheduledJobOfDeadProcessBecomesReady(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		b := startHarness(t, s)
		defer b.stop()
		b.startWorker(1)
		time.Sleep(10 * time.Second)
		a := startHarness(t, s)
		snap := a.submit(engine.Request{Delay: 3 * time.Second})
		a.stop() // before the job is due
		time.Sleep(3 * time.Second)
		if c := b.nextJob("scheduled by a process that is gone"); c.Job.ID != snap.ID {
			t.Error("another job was given out")
		}
	})
}

func TestPauseAppliesToOtherProcess(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		a, b := startHarness(t, s), startHarness(t, s)
		defer a.stop()
		defer b.stop()
		b.startWorker(1)
		pause := func(on bool) {
			if _, err := a.SetPaused(t.Context(), "sim", on); err != nil {
				t.Fatal(err)
			}
		}
		pause(true)
		b.submit(engine.Request{})
		b.expectNoJob("paused elsewhere")
		pause(false)
		b.nextJob("resumed elsewhere")
	})
}

// A limit of all processes is held by all, and what one frees another uses.
func TestMaxRunningSpansProcesses(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		q := queues()
		q[0].MaxRunning = 1
		a, b := startWithQueues(t, s, q), startWithQueues(t, s, q)
		defer a.stop()
		defer b.stop()
		a.startWorker(1)
		b.startWorker(1)
		a.submit(engine.Request{})
		c := a.nextJob("submitted")
		snap := b.submit(engine.Request{})
		b.expectNoJob("one runs elsewhere")
		a.stop() // gives nothing back: its worker still has the job
		if _, err := s.Job(t.Context(), local, snap.ID); err != nil {
			t.Fatal(err)
		}
		f := &store.Finish{Lease: c.Lease(), To: job.Succeeded}
		batch := store.NewBatch()
		batch.Add(f)
		if err := store.Commit(t.Context(), s, batch); err != nil || f.Err != nil {
			t.Fatal(err, f.Err)
		}
		b.nextJob("ended elsewhere")
	})
}

// Where nothing happens nothing is written, however many processes there are.
func TestIdleProcessesDoNotCommit(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		a, b := startHarness(t, s), startHarness(t, s)
		defer a.stop()
		defer b.stop()
		a.startWorker(2)
		b.startWorker(2)
		for range 2 {
			a.submit(engine.Request{})
		}
		for range 2 {
			a.finish(a.nextJob("submitted"), job.Outcome{})
		}
		b.submit(engine.Request{Delay: time.Hour})
		time.Sleep(10 * time.Second)
		s.mu.Lock()
		s.beforeApply = func(b *store.Batch) {
			if len(b.Prunes) == b.Len() {
				return // the look of the retention, twice a minute, which finds nothing
			}
			t.Errorf("of two processes at rest one commits %d dues, %d prunes, %d claims, %d ops in all", len(b.Dues), len(b.Prunes), len(b.Claims), b.Len())
		}
		s.mu.Unlock()
		time.Sleep(20 * time.Second)
		s.mu.Lock()
		s.beforeApply = nil
		s.mu.Unlock()
	})
}
