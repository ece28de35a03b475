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

// A lapsed lease whose end the store cannot take is not tried every second for ever. The
// job ends as failed without what follows from its end, where the store takes that.
func TestAnEndThatTheStoreCannotTake(t *testing.T) {
	for name, never := range map[string]bool{"with what follows": false, "at all": true} {
		t.Run(name, func(t *testing.T) {
			beside(t, func(t *testing.T, s *shared) {
				var tries atomic.Int64
				f := faulty.New(s, faulty.Plan{Bad: func(op any) bool {
					end, is := op.(*store.Finish)
					if is {
						tries.Add(1)
					}
					return is && (never || !end.Bare)
				}})
				h := startConfig(t, engine.Config{Store: unclosed{f}, Queues: queues()})
				defer h.stop()
				h.serve(1)
				snap := h.submit(engine.Request{})
				<-h.jobs // and never renewed
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
					t.Errorf("its end was tried %d times in an hour", n)
				}
			})
		})
	}
}
