package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// When the store's clock jumps, leases seem to have lapsed, or to last forever. No job is swept
// because of the jump: renewals correct the leases first.
func TestClockJumpSweepsNoLease(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"forwards": 24 * time.Hour, "back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testClockJump(t, by) })
		})
	}
}

func testClockJump(t *testing.T, by time.Duration) {
	w := newSweepHarness(t, time.Hour) // no sweep until renewals were possible for an hour
	w.sweeper.healthySince = time.Now().Add(-2 * time.Hour)
	id := w.submit(Request{})
	c := <-w.jobs
	w.clock.pass(by)
	w.sweep()
	if len(w.orders) > 0 || w.get(id).State != job.Running {
		t.Fatal("a clock jump swept the lease of a healthy worker")
	}
	if err := w.Renew(t.Context(), []job.Lease{c.Lease()})[0]; err != nil {
		t.Fatal(err)
	}
	w.sweeper.healthySince = time.Now().Add(-2 * time.Hour)
	w.clock.pass(29 * time.Second)
	w.sweeper.lastDrift = w.sweeper.drift() // as if that much time had passed since the last sweep
	w.sweep()
	if len(w.orders) > 0 {
		t.Fatal("a renewed lease was swept too early")
	}
	w.clock.pass(2 * time.Second)
	w.sweeper.lastDrift = w.sweeper.drift()
	w.sweep()
	if o := <-w.orders; o != job.OrderLost {
		t.Fatalf("the silent worker was ordered %v", o)
	}
}
