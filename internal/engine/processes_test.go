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

// pollBound is the maximum time within which a process reacts to another without notices.
const pollBound = time.Second

// sharedStore is a store that several engines share, as processes share a database.
type sharedStore struct {
	store.Store
	mu          sync.Mutex
	commits     atomic.Int64
	beforeApply func(*store.Batch) // called with a batch before it is applied; may be nil
	afterApply  func(*store.Batch) // called with a batch after it was applied; may be nil
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

func (s *sharedStore) Close() error { return nil } // withSharedStore closes the store

// withSharedStore runs a test in a bubble, with a store for several engines.
func withSharedStore(t *testing.T, test func(t *testing.T, s *sharedStore)) {
	synctest.Test(t, func(t *testing.T) {
		s := &sharedStore{Store: newStore(t)}
		t.Cleanup(func() { _ = s.Store.Close() })
		test(t, s)
	})
}

func TestIdleWorkerGetsJobOfOtherProcess(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		a, b := startHarness(t, s), startHarness(t, s)
		b.startWorker(1)
		time.Sleep(10 * time.Second)
		snap := a.submit(engine.Request{})
		if c := b.nextJob("submitted elsewhere"); c.Job.ID != snap.ID {
			t.Error("another job was delivered")
		}
	})
}

// The counts of a process may be outdated. One futile claim corrects them, and it is not
// repeated.
func TestStaleCountsCauseNoBusyLoop(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		a, b := startHarness(t, s), startHarness(t, s)
		b.submit(engine.Request{}) // b counts one queued job
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

// Counts that stay wrong cause at most two claims per second.
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
		b.startWorker(1)
		time.Sleep(10 * time.Second)
		a := startHarness(t, s)
		snap := a.submit(engine.Request{Delay: 3 * time.Second})
		a.stop() // before the job is due
		time.Sleep(3 * time.Second)
		if c := b.nextJob("scheduled by a process that is gone"); c.Job.ID != snap.ID {
			t.Error("another job was delivered")
		}
	})
}

func TestPauseAppliesToOtherProcess(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		a, b := startHarness(t, s), startHarness(t, s)
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

// max_running limits all processes together. When a job of one process ends, another process may
// start one.
func TestMaxRunningSpansProcesses(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		q := queues()
		q[0].MaxRunning = 1
		a, b := startWithQueues(t, s, q), startWithQueues(t, s, q)
		a.startWorker(1)
		b.startWorker(1)
		a.submit(engine.Request{})
		c := a.nextJob("submitted")
		snap := b.submit(engine.Request{})
		b.expectNoJob("one runs elsewhere")
		a.stop() // without a release, because the worker still has the job
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

// Idle processes write nothing, even if there are many.
func TestIdleProcessesDoNotCommit(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		a, b := startHarness(t, s), startHarness(t, s)
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
				return // the retention runs twice a minute and finds nothing to delete
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
