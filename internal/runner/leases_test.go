package runner

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestLeases(t *testing.T) {
	runRules(t, []rule{
		{"leases that are due at about the same time are renewed in one call", renewsTogether},
		{"without a lease to renew there is no call", renewsNothing},
		{"a refused renewal is a lost lease, and affects no other", losesLeaseAtRenewal},
		{"a renewal that failed is repeated soon", retriesFailedRenewal},
		{"work whose lease cannot be renewed stops before the lease expires, and is released", stopsBeforeExpiry},
		{"with IgnoreLeaseExpiry, work goes on through an outage", continuesThroughOutage},
		{"work that ignores this stop is released after its grace", releasesAfterExpiry},
		{"a renewal without an answer stops the work as well", stopsWithoutAnswer},
		{"a renewed lease runs from before its call", countsLeaseFromCall},
		{"a late answer does not make a lease older", keepsNewerAnswer},
		{"a lease runs from its commit: after a late delivery it is renewed sooner", renewsSoonerAfterLateDelivery},
		{"a lease runs from its commit: after a late delivery work stops sooner", stopsSoonerAfterLateDelivery},
		{"a lease that expired during delivery is renewed before work is stopped", renewsExpiredDelivery},
		{"a source that hangs is asked again after a third of the lease", repeatsHungRenewal},
		{"a source that hangs for one lease does not delay others", renewsOthersWhenHung},
		{"there are never two calls for one lease", renewsEachLeaseOnceAtATime},
		{"a short lease is renewed every third of its length", renewsShortLeases},
		{"a short lease does not make others renew sooner", renewsShortLeasesAlone},
		{"a lease is renewed until its outcome is stored", renewsWhileFinishing},
	})
}

func renewsTogether(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	h.deliver(1)
	h.deliver(2)
	advance(2 * time.Second)
	h.deliver(3)
	advance(3 * time.Second)
	h.deliver(4)
	advance(5 * time.Second)
	want(t, "the number of calls after 10 s", len(h.renewals()), 1)
	want(t, "leases in the first", len(h.renewals()[0]), 3)
	advance(5 * time.Second)
	want(t, "the number of calls after 15 s", len(h.renewals()), 2)
	want(t, "leases in the second", len(h.renewals()[1]), 1)
	h.order(1, job.OrderCancel)
	advance(5 * time.Second)
	want(t, "the number of calls after 20 s", len(h.renewals()), 3)
	want(t, "leases in the third", len(h.renewals()[2]), 2)
}

func renewsNothing(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	advance(time.Minute)
	rec := h.deliver(1)
	h.order(1, job.OrderCancel)
	advance(time.Minute)
	want(t, "cancelled", h.outcome(rec).Cancelled, true)
	want(t, "the number of calls", len(h.renewals()), 0)
}

func losesLeaseAtRenewal(t *testing.T) {
	var why error
	h := newHarness(t, untilStopped(&why))
	h.setRenew(func(leases []job.Lease) []error {
		errs := make([]error, len(leases))
		for i, l := range leases {
			if l.Job == (job.ID{15: 1}) {
				errs[i] = job.Errorf(job.LeaseLost, "another has it")
			}
		}
		return errs
	})
	lost, kept := h.deliver(1), h.deliver(2)
	advance(time.Minute)
	wantErr(t, why, exec.ErrLost)
	want(t, "finishes of the lost one", lost.snapshot().finishes, 0)
	want(t, "the other still running", kept.running(), true)
	want(t, "leases in the last call", len(h.renewals()[len(h.renewals())-1]), 1)
}

func retriesFailedRenewal(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	h.setRenew(func(leases []job.Lease) []error {
		if len(h.renewals()) < 4 {
			return []error{errOutage}
		}
		return make([]error, len(leases))
	})
	rec := h.deliver(1)
	advance(16 * time.Second)
	want(t, "the number of calls", len(h.renewals()), 4)
	advance(time.Minute)
	want(t, "still running", rec.running(), true)
}

func stopsBeforeExpiry(t *testing.T) {
	var why error
	h := newHarness(t, untilStopped(&why))
	h.setRenew(func([]job.Lease) []error { return []error{errOutage} })
	rec := h.deliver(1)
	advance(25*time.Second - 1)
	want(t, "running before its lease is about to end", rec.running(), true)
	advance(1)
	wantErr(t, why, exec.ErrLost)
	want(t, "released", h.outcome(rec).Released, true)
}

func continuesThroughOutage(t *testing.T) {
	var why error
	h := newHarness(t, untilStopped(&why), func(c *Config) { c.IgnoreLeaseExpiry = true })
	h.setRenew(func([]job.Lease) []error { return []error{errOutage} })
	rec := h.deliver(1)
	advance(time.Hour)
	want(t, "running after an hour", rec.running(), true)
	lost := job.Errorf(job.LeaseLost, "it was lost")
	h.setRenew(func([]job.Lease) []error { return []error{lost} })
	advance(10 * time.Second)
	wantErr(t, why, exec.ErrLost)
}

func releasesAfterExpiry(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release))
	h.setRenew(func([]job.Lease) []error { return []error{errOutage} })
	rec := h.deliver(1)
	advance(35*time.Second - 1)
	want(t, "running within its grace", rec.running(), true)
	advance(1)
	want(t, "released", h.outcome(rec).Released, true)
	close(release)
}

func stopsWithoutAnswer(t *testing.T) {
	var why error
	h := newHarness(t, untilStopped(&why))
	answer := make(chan struct{})
	h.setRenew(func([]job.Lease) []error {
		<-answer
		return []error{nil}
	})
	rec := h.deliver(1)
	advance(25 * time.Second)
	wantErr(t, why, exec.ErrLost)
	want(t, "released", h.outcome(rec).Released, true)
	want(t, "the number of calls", len(h.renewals()), 1)
	close(answer)
}

func countsLeaseFromCall(t *testing.T) {
	var why error
	h := newHarness(t, untilStopped(&why))
	h.setRenew(func([]job.Lease) []error {
		if len(h.renewals()) == 1 {
			sleep(9 * time.Second)
			return []error{nil}
		}
		return []error{errOutage}
	})
	rec := h.deliver(1)
	advance(35*time.Second - 1) // called after 10 s, answered after 19 s
	want(t, "running before its lease is about to end", rec.running(), true)
	advance(1)
	want(t, "released", h.outcome(rec).Released, true)
	wantErr(t, why, exec.ErrLost)
}

// The process was suspended during a renewal, so the answer comes long after the call. The
// answer proves that the lease exists, so it must not move the lease's start back.
func keepsNewerAnswer(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	rec := h.deliver(1)
	synctest.Wait()
	r := h.runner
	r.mu.Lock()
	a := r.leased[job.Token{15: 1}]
	r.mu.Unlock()
	newer := time.Now()
	r.recordRenewal(a, newer.Add(-time.Hour), true)
	r.mu.Lock()
	from := a.lease.extendedAt
	r.mu.Unlock()
	want(t, "when the lease is counted from", from, newer)
	advance(time.Minute)
	want(t, "still running", rec.running(), true)
}

// deliveredLate delivers a job late: the given time after the commit of its claim.
func deliveredLate(by time.Duration) func(*job.Claimed) {
	return func(c *job.Claimed) { c.Left = c.Job.Policy.Timeouts.Lease - by }
}

func renewsSoonerAfterLateDelivery(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	h.deliver(1, deliveredLate(6*time.Second))
	advance(4*time.Second - 1)
	want(t, "the number of calls", len(h.renewals()), 0)
	advance(1)
	want(t, "the number of calls", len(h.renewals()), 1)
}

func stopsSoonerAfterLateDelivery(t *testing.T) {
	var why error
	h := newHarness(t, untilStopped(&why))
	h.setRenew(func([]job.Lease) []error { return []error{errOutage} })
	rec := h.deliver(1, deliveredLate(6*time.Second))
	advance(19*time.Second - 1)
	want(t, "running before its lease is about to end", rec.running(), true)
	advance(1)
	wantErr(t, why, exec.ErrLost)
}

func renewsExpiredDelivery(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	rec := h.deliver(1, deliveredLate(time.Minute))
	synctest.Wait()
	want(t, "the number of calls", len(h.renewals()), 1)
	advance(time.Minute)
	want(t, "still running", rec.running(), true)
}

func repeatsHungRenewal(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	var hung []time.Duration
	start := time.Now()
	h.setHangs(func([]job.Lease) bool {
		hung = append(hung, time.Since(start))
		return len(hung) == 1
	})
	rec := h.deliver(1)
	advance(time.Minute)
	want(t, "still running", rec.running(), true)
	want(t, "when the source was asked first", hung[0], 10*time.Second)
	want(t, "when it was asked again", hung[1], 22*time.Second) // after a third of the lease, and a retry delay
}

func renewsOthersWhenHung(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	h.setHangs(func(leases []job.Lease) bool { return leases[0].Job == (job.ID{15: 1}) })
	stuck := h.deliver(1)
	advance(5 * time.Second)
	other := h.deliver(2)
	advance(time.Minute)
	want(t, "the one still running", stuck.running(), false)
	want(t, "the other still running", other.running(), true)
}

// This source ignores the end of the context.
func renewsEachLeaseOnceAtATime(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	answer := make(chan struct{})
	var mu sync.Mutex
	calls := map[job.ID]int{} // guarded by mu
	h.setRenew(func(leases []job.Lease) []error {
		mu.Lock()
		for _, l := range leases {
			calls[l.Job]++
		}
		mu.Unlock()
		<-answer
		return make([]error, len(leases))
	})
	for n := range byte(3) {
		h.deliver(n)
		advance(4 * time.Second)
	}
	advance(12 * time.Second)
	mu.Lock()
	defer mu.Unlock()
	for id, n := range calls {
		want(t, "calls that are out for "+id.String(), n, 1)
	}
	want(t, "leases that are asked for", len(calls), 3)
	close(answer)
}

func renewsShortLeasesAlone(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	h.deliver(1)
	h.deliver(2, func(c *job.Claimed) { c.Job.Policy.Timeouts.Lease = time.Second })
	advance(5 * time.Second)
	h.order(2, job.OrderCancel)
	synctest.Wait()
	short := len(h.renewals())
	if short < 14 {
		t.Fatalf("in 5 s a lease of 1 s was renewed %d times", short)
	}
	advance(time.Minute)
	want(t, "renewals of the other in 65 s", len(h.renewals())-short, 6)
}

func renewsShortLeases(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	advance(time.Second)
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Policy.Timeouts.Lease = 6 * time.Second })
	advance(time.Minute)
	want(t, "the number of calls", len(h.renewals()), 30)
	want(t, "still running", rec.running(), true)
}

func renewsWhileFinishing(t *testing.T) {
	h := newHarness(t, returnNil)
	var up atomic.Bool
	h.onFinish = func(job.Outcome) error {
		if up.Load() {
			return nil
		}
		return errOutage
	}
	rec := h.deliver(1)
	advance(25 * time.Second)
	want(t, "the number of renewals", len(h.renewals()), 2)
	up.Store(true)
	advance(time.Second)
	want(t, "released", h.outcome(rec).Released, false)
}
