package engine_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// While the store hangs, workers repeatedly renew and give up, and clients cancel and delete.
// The number of pending ops stays bounded. Once the store works, the leases are renewed for the
// latest callers, and refused ops can be repeated.
func TestHangingStoreBoundsPendingOps(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		renews, changes := atomic.Int64{}, atomic.Int64{}
		s.beforeApply = func(b *store.Batch) {
			renews.Add(int64(len(b.Renews)))
			changes.Add(int64(len(b.Deletes)))
		}
		view := &stallingStore{Store: s}
		h := startWithConfig(t, engine.Config{Store: view, Queues: queues()})
		h.startWorker(2)
		h.submit(engine.Request{})
		h.submit(engine.Request{})
		c, ended := <-h.jobs, <-h.jobs
		resume := make(chan struct{})
		view.resume.Store(&resume)
		renew := func(wait time.Duration) error {
			ctx, leave := context.WithTimeout(t.Context(), wait)
			defer leave()
			return h.Renew(ctx, []job.Lease{c.Lease()})[0]
		}
		for range 100 {
			if err := renew(10 * time.Second); err == nil {
				t.Fatal("a renewal that is not stored was answered")
			}
			time.Sleep(2 * time.Second)
		}
		cancelled, leave := context.WithCancel(t.Context())
		leave()
		refused := 0
		for range 10_000 {
			if job.CodeOf(h.Delete(cancelled, local, job.NewID())) == job.Overloaded {
				refused++
			}
		}
		if refused == 0 {
			t.Error("no delete was refused")
		}
		finished, renewed := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := h.Finish(context.Background(), ended.Lease(), job.Outcome{})
			finished <- err
		}()
		asked := time.Now()
		go func() { renewed <- renew(20 * time.Second) }()
		time.Sleep(10 * time.Second)
		synctest.Wait() // all callers wait
		view.resume.Store(nil)
		close(resume)
		if err := <-finished; err != nil {
			t.Errorf("a finish was answered %v", err)
		}
		if err := <-renewed; err != nil {
			t.Errorf("the last renewal was answered %v", err)
		}
		list, err := s.Leases(t.Context(), []job.Lease{c.Lease()})
		if err != nil || list[0].Token != c.Token {
			t.Fatalf("the lease is void: %v", err)
		}
		if lapsed, err := s.Running(t.Context(), store.LapsedOnly, job.ID{}, 9); err != nil || len(lapsed) > 0 {
			t.Errorf("after a renewal that was asked for at %s, the lease has lapsed: %v", asked, err)
		}
		if err := renew(time.Second); err != nil {
			t.Errorf("the next renewal was answered %v", err)
		}
		if n := renews.Load(); n > 3 {
			t.Errorf("for one lease %d renewals waited for the store", n)
		}
		if n := changes.Load(); n != int64(10_000-refused) {
			t.Errorf("of 10000 deletes %d were refused, and %d made", refused, n)
		}
		if err := h.Delete(t.Context(), local, c.Job.ID); err != nil {
			t.Errorf("a delete after the store worked again: %v", err)
		}
	})
}

// A stop answers the callers that wait for a renewal, even if the commit of the renewal is in
// doubt and another renewal is to follow.
func TestStopAnswersUncertainRenewals(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		losing := atomic.Bool{}
		f := faulty.New(s, faulty.Plan{Commit: func(int, *store.Batch) (f faulty.Fault) {
			if losing.Load() {
				f.Step = faulty.SyncLostAfterCommit
			}
			return f
		}})
		h := startWithConfig(t, engine.Config{Store: f, Queues: queues()})
		h.startWorker(1)
		h.submit(engine.Request{})
		c := <-h.jobs
		losing.Store(true)
		answers := make(chan error, 3)
		for range 3 {
			go func() { answers <- h.Renew(context.Background(), []job.Lease{c.Lease()})[0] }()
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(answers) > 0 {
			t.Errorf("a renewal in doubt was answered %v", <-answers)
		}
		h.stop()
		for range 3 {
			// The following renewal may come too late to be tried.
			if err := <-answers; job.CodeOf(err) != job.Unavailable && job.CodeOf(err) != job.ShuttingDown {
				t.Errorf("at the stop a renewal was answered %v", err)
			}
		}
	})
}
