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

// A finish is stored, but its answer is late. Meanwhile the check of the leases finds that the
// job has ended. The worker gets no OrderLost, because its own finish ended the job.
func TestLateFinishIsNotReportedAsLost(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(late bool) faulty.Fault{
		"a late answer": func(bool) faulty.Fault {
			return faulty.Fault{After: func() { time.Sleep(5 * time.Second) }}
		},
		"in doubt": func(late bool) (f faulty.Fault) {
			if late {
				f.Step = faulty.SyncLostAfterCommit
			}
			return f
		},
	} {
		for _, deleted := range []bool{false, true} { // the finish of a deleted job removes it
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				withSharedStore(t, func(t *testing.T, s *sharedStore) {
					var late atomic.Bool
					f := faulty.New(s, faulty.Plan{Commit: func(_ int, b *store.Batch) (none faulty.Fault) {
						if len(b.Finishes) > 0 {
							return fault(late.Load())
						}
						return none
					}})
					h := startWithConfig(t, engine.Config{Store: f, Queues: queues(), Bus: silentBus{}})
					h.startWorker(1)
					snap := h.submit(engine.Request{})
					c := <-h.jobs
					if deleted {
						if err := h.Delete(t.Context(), local, snap.ID); err != nil {
							t.Fatal(err)
						}
						h.expectOrder(job.OrderCancel, pollBound)
					}
					late.Store(true)
					finished := make(chan error, 1)
					go func() {
						_, err := h.Finish(context.Background(), c.Lease(), job.Outcome{})
						finished <- err
					}()
					time.Sleep(4 * time.Second)
					late.Store(false)
					if err := <-finished; err != nil {
						t.Errorf("the finish was answered %v", err)
					}
					synctest.Wait()
					if len(h.orders) > 0 {
						t.Errorf("the worker was ordered %v", <-h.orders)
					}
					h.expectFreeSlots(1)
				})
			})
		}
	}
}
