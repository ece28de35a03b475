package engine

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/runner"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// hangingSource is an engine whose connection hangs for some renewals.
type hangingSource struct {
	*Engine
	hangs func() bool
}

func (s hangingSource) Renew(ctx context.Context, leases []job.Lease) []error {
	if !s.hangs() {
		return s.Engine.Renew(ctx, leases)
	}
	<-ctx.Done()
	errs := make([]error, len(leases))
	for i := range errs {
		errs[i] = ctx.Err()
	}
	return errs
}

// The store's clock jumps past the lease just after a renewal, and the next renewal hangs. Another
// process, which is healthy, does not take the job from its worker.
func TestHungRenewalAfterClockJumpLosesNoJob(t *testing.T) {
	t.Parallel()
	for name, lease := range map[string]time.Duration{"lease of 30 s": 30 * time.Second, "lease of an hour": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testHungRenewalAfterClockJump(t, lease) })
		})
	}
}

func testHungRenewalAfterClockJump(t *testing.T, lease time.Duration) {
	var jump atomic.Int64
	s := NewTestStore(t, sqlite.Options{Unsynced: true, Clock: func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }})
	defer func() { _ = s.Close() }()
	var swept, attempts, calls atomic.Int32
	between := &bus.Local{}
	start := func() *Engine {
		q := testQueue(8, 9, job.Timeouts{Lease: lease, CancelGrace: 10 * time.Second})
		e, err := New(t.Context(), Config{Store: s, Queues: []Queue{q}, Bus: between, Observer: sweepCounter{n: &swept}})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e, other := start(), start()
	for _, each := range []*Engine{e, other} {
		defer RunInBackground(each.Run)()
	}
	defer RunInBackground(runner.New(runner.Config{
		Source: hangingSource{Engine: e, hangs: func() bool { return calls.Add(1) == 2 }}, Queue: "q", Slots: 1, Grace: time.Millisecond,
		Executor: executorFunc(func(ctx context.Context, _ exec.Task) error {
			attempts.Add(1)
			<-ctx.Done()
			return context.Cause(ctx)
		}),
	}).Run)()
	synctest.Wait()
	time.Sleep(25 * time.Second) // the first sweeps after the start are over
	if _, _, err := e.Submit(t.Context(), Request{Queue: "q"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10*time.Second + time.Millisecond)
	if calls.Load() != 1 {
		t.Fatalf("the lease was renewed %d times in 10 s", calls.Load())
	}
	jump.Store(int64(2 * time.Hour))
	time.Sleep(time.Minute)
	if calls.Load() < 4 || swept.Load() > 0 || attempts.Load() != 1 {
		t.Errorf("after %d renewals %d leases were swept, and the job of a healthy worker began %d times", calls.Load(), swept.Load(), attempts.Load())
	}
}

// The rest of a lease is counted from before its commit, by the clock of the process: neither the
// time of the commit nor a jump of the store's clock lengthens it.
func TestLeaseIsCountedFromBeforeItsCommit(t *testing.T) {
	t.Parallel()
	for name, submitFirst := range map[string]bool{"by a submit": false, "by a claim": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newOutageHarness(t, 30*time.Second, 10*time.Second)
				jobs := make(chan job.Claimed, 1)
				if submitFirst {
					if err := h.submit(); err != nil {
						t.Fatal(err)
					}
				}
				h.syncDelay.Store(int64(20 * time.Second))
				h.Consume(job.Worker{Name: "w", Queue: "q", Slots: 1, Deliver: func(c job.Claimed) { jobs <- c }})
				if !submitFirst {
					go func() { _ = h.submit() }()
				}
				time.Sleep(10 * time.Second)
				h.clockAhead.Store(-int64(15 * time.Second))
				if c := <-jobs; c.Left != 10*time.Second {
					t.Errorf("20 s after the commit %s of 30 s are left", c.Left)
				}
				h.syncDelay.Store(0)
			})
		})
	}
}

// A job is delivered 29 s after its commit, and then the store hangs. Its work does not start,
// because another process may get the job a second later.
func TestLateDeliveryDoesNotOutliveItsLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newOutageHarness(t, 30*time.Second, 10*time.Second)
		h.startRunner(10*time.Second, 40*time.Second)
		h.syncDelay.Store(int64(29 * time.Second))
		go func() { _ = h.submit() }()
		time.Sleep(28 * time.Second)
		h.applyDelay.Store(int64(5 * time.Minute))
		time.Sleep(4 * time.Minute)
		if n := h.attempts.Load(); n != 0 {
			t.Errorf("%d attempts began although the lease was over", n)
		}
		h.syncDelay.Store(0)
		h.applyDelay.Store(0)
		time.Sleep(5 * time.Minute)
		if h.attempts.Load() == 0 {
			t.Error("the job never started")
		}
	})
}
