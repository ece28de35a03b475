package engine_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// The store rejects the finish of a lapsed lease. The sweep does not retry it every second
// forever. If the store accepts the finish without its follow-up rows and jobs, the job ends as
// failed.
func TestUnstorableFinishIsNotRetriedForever(t *testing.T) {
	t.Parallel()
	for name, never := range map[string]bool{"with what follows": false, "at all": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withSharedStore(t, func(t *testing.T, s *sharedStore) {
				var tries atomic.Int64
				f := faulty.New(s, faulty.Plan{Bad: func(op any) bool {
					end, is := op.(*store.Finish)
					if is {
						tries.Add(1)
					}
					return is && (never || !end.SkipAtEnd)
				}})
				h := startWithConfig(t, engine.Config{Store: f, Queues: queues()})
				h.startWorker(1)
				snap := h.submit(engine.Request{})
				<-h.jobs // never renewed
				time.Sleep(time.Hour)
				synctest.Wait()
				j, err := s.Job(t.Context(), local, snap.ID)
				if err != nil {
					t.Fatal(err)
				}
				if never && j.State != job.Running || !never && (j.State != job.Failed || j.Failure.Code != "result_refused") {
					t.Errorf("after an hour the job is %s, %+v", j.State, j.Failure)
				}
				if n := tries.Load(); n > 40 {
					t.Errorf("the finish was tried %d times in an hour", n)
				}
			})
		})
	}
}

// The store rejects the cancel of one abandoned job. Other abandoned jobs are still
// cancelled, and lapsed leases are still swept.
func TestUnstorableCancelBlocksNoOtherJob(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		first := job.NewID()
		f := faulty.New(s, faulty.Plan{Bad: func(op any) bool {
			c, is := op.(*store.Cancel)
			return is && c.ID == first
		}})
		q := queues()
		q[0].Policy.Timeouts.Abandon = job.MinAbandon
		h := startWithConfig(t, engine.Config{Store: f, Queues: q})
		h.submit(engine.Request{ID: first})
		second := h.submit(engine.Request{})
		time.Sleep(job.MinAbandon + time.Minute)
		h.startWorker(1)
		<-h.jobs // the first one, never renewed
		if j, err := s.Job(t.Context(), local, second.ID); err != nil || j.State != job.Cancelled {
			t.Errorf("an abandoned job behind it is %s, %v", j.State, err)
		}
		time.Sleep(2 * time.Minute)
		if j, err := s.Job(t.Context(), local, first); err != nil || j.Losses == 0 {
			t.Errorf("two minutes after its worker was lost the job is %s, lost %d times, %v", j.State, j.Losses, err)
		}
	})
}

// If a store failed and then rejects an op, it works again, so new work is accepted.
func TestRefusalEndsOutage(t *testing.T) {
	t.Parallel()
	for name, full := range map[string]bool{"bad data": false, "full disk": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withSharedStore(t, func(t *testing.T, s *sharedStore) {
				tries, poisoned := 0, atomic.Bool{} // tries is owned by the engine's loop
				poison := func(op any) bool {
					sub, is := op.(*store.Submit)
					return is && string(sub.Input) == "poison"
				}
				f := faulty.New(s, faulty.Plan{Commit: func(_ int, b *store.Batch) (f faulty.Fault) {
					if len(b.Submits) == 0 || !poison(b.Submits[0]) {
						return f
					}
					if tries++; tries == 1 {
						f.Step = faulty.BeforeCommit
					} else if full {
						f.Step = faulty.DiskFull
					} else {
						poisoned.Store(true)
					}
					return f
				}, Bad: func(op any) bool { return poisoned.Load() && poison(op) }})
				h := startWithConfig(t, engine.Config{Store: f, Queues: queues()})
				time.Sleep(3 * time.Second) // until the engine has started
				_, _, err := h.Submit(t.Context(), engine.Request{Owner: local, Queue: "sim", Input: []byte("poison")})
				if want := map[bool]job.Code{false: job.Invalid, true: job.NoSpace}[full]; job.CodeOf(err) != want {
					t.Fatalf("the submit was answered %v", err)
				}
				time.Sleep(2 * time.Second)
				h.submit(engine.Request{})
			})
		})
	}
}

// The store rejects the expiry of a job with its follow-up, so the job expires without the
// follow-up. Other jobs become due nevertheless.
func TestUnstorableExpiryBlocksNoOtherJob(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		f := faulty.New(s, faulty.Plan{Bad: func(op any) bool {
			d, is := op.(*store.Due)
			return is && !d.SkipAtEnd
		}})
		q := queues()
		h := startWithConfig(t, engine.Config{Store: f, Queues: q})
		p := policy()
		p.Timeouts.Queue = 5 * time.Second
		old := h.submit(engine.Request{Policy: &p})
		delayed := h.submit(engine.Request{Delay: 10 * time.Second})
		time.Sleep(12 * time.Second)
		for id, want := range map[job.ID]job.State{old.ID: job.Expired, delayed.ID: job.Queued} {
			if j, err := s.Job(t.Context(), local, id); err != nil || j.State != want {
				t.Errorf("a job is %s, want %s, %v", j.State, want, err)
			}
		}
	})
}
