package runner

import (
	"context"
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
		{"work that ignores this stop is over before its lease ends, whatever its grace", killsBeforeExpiry},
		{"so is work with a short lease", killsBeforeShortExpiry},
		{"so is work that is within the grace of a cancel", killsCancelledBeforeExpiry},
		{"work whose lease is lost is killed at once", killsWhenLost},
		{"a renewal without an answer stops the work as well", stopsWithoutAnswer},
		{"a renewed lease runs from before its call", countsLeaseFromCall},
		{"a late answer does not make a lease older", keepsNewerAnswer},
		{"a lease runs from its commit: after a late delivery it is renewed sooner", renewsSoonerAfterLateDelivery},
		{"a lease runs from its commit: after a late delivery work stops sooner", stopsSoonerAfterLateDelivery},
		{"work that arrives when its first renewal is due starts after that", startsLateDeliveryAfterRenewal},
		{"without that renewal it never starts", neverStartsWithoutRenewal},
		{"with IgnoreLeaseExpiry it starts at once", startsLateDeliveryAtOnce},
		{"a source that hangs is asked again within an interval", repeatsHungRenewal},
		{"so it is for a long lease", repeatsHungRenewalOfLongLease},
		{"a renewal that takes seconds is not repeated", waitsForSlowRenewal},
		{"renewals that take longer than an interval keep the work running", usesLateAnswers},
		{"a late failure after a success is not repeated", ignoresLateFailure},
		{"a source that hangs for one lease does not delay others", renewsOthersWhenHung},
		{"there are at most two calls for one lease", boundsCallsOfLease},
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

// untilKilled returns an executor that ignores stops and stores when it was killed.
func untilKilled(at *time.Time) executorFunc {
	return func(_ context.Context, _ exec.Task, out exec.Sink) error {
		<-out.Killed()
		*at = time.Now()
		return exec.ErrLost
	}
}

func killsBeforeExpiry(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release))
	h.setRenew(func([]job.Lease) []error { return []error{errOutage} })
	rec := h.deliver(1)
	advance(29*time.Second - 1)
	want(t, "running until shortly before its lease ends", rec.running(), true)
	advance(1)
	want(t, "released", h.outcome(rec).Released, true)
	close(release)
}

func killsBeforeShortExpiry(t *testing.T) {
	var killed time.Time
	h := newHarness(t, untilKilled(&killed))
	h.setRenew(func([]job.Lease) []error { return []error{errOutage} })
	began := time.Now()
	h.deliver(1, func(c *job.Claimed) { c.Job.Policy.Timeouts.Lease = 3 * time.Second })
	advance(3 * time.Second)
	want(t, "when it was killed", killed.Sub(began), 2900*time.Millisecond)
}

func killsCancelledBeforeExpiry(t *testing.T) {
	var killed time.Time
	h := newHarness(t, untilKilled(&killed))
	h.setRenew(func([]job.Lease) []error { return []error{errOutage} })
	rec, began := h.deliver(1), time.Now()
	advance(24 * time.Second)
	h.order(1, job.OrderCancel)
	advance(6 * time.Second)
	want(t, "when it was killed", killed.Sub(began), 29*time.Second)
	want(t, "cancelled", h.outcome(rec).Cancelled, true)
}

func killsWhenLost(t *testing.T) {
	var killed time.Time
	h := newHarness(t, untilKilled(&killed))
	h.deliver(1)
	advance(time.Second)
	h.order(1, job.OrderLost)
	lost := time.Now()
	advance(time.Minute)
	want(t, "when it was killed", killed, lost)
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
	want(t, "the number of calls", len(h.renewals()), 2)
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

// A second call was answered first. So the lease exists since then, and the answer to the first
// call must not move its start back.
func keepsNewerAnswer(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	rec := h.deliver(1)
	synctest.Wait()
	r := h.runner
	r.mu.Lock()
	a := r.leased[job.Token{15: 1}]
	r.mu.Unlock()
	newer := time.Now()
	r.mu.Lock()
	a.lease.calls++
	r.mu.Unlock()
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

func startsLateDeliveryAfterRenewal(t *testing.T) {
	var started atomic.Bool
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		started.Store(true)
		return blockUntilStopped(ctx, task, out)
	})
	h.setRenew(func(leases []job.Lease) []error {
		want(t, "started before its renewal", started.Load(), false)
		sleep(3 * time.Second)
		h.setRenew(nil)
		return make([]error, len(leases))
	})
	rec := h.deliver(1, deliveredLate(10*time.Second))
	synctest.Wait()
	want(t, "the number of calls", len(h.renewals()), 1)
	advance(3*time.Second - 1)
	want(t, "started before the answer", started.Load(), false)
	advance(1)
	want(t, "started", started.Load(), true)
	advance(time.Minute)
	want(t, "still running", rec.running(), true)
}

func neverStartsWithoutRenewal(t *testing.T) {
	h := newHarness(t, func(context.Context, exec.Task, exec.Sink) error {
		t.Error("the work starts although its lease may be over")
		return nil
	})
	lost := job.Errorf(job.LeaseLost, "another has it")
	h.setRenew(func(leases []job.Lease) []error {
		if leases[0].Job == (job.ID{15: 1}) && len(h.renewals()) > 40 {
			return []error{lost}
		}
		return []error{errOutage}
	})
	swept := h.deliver(1, deliveredLate(29*time.Second))
	advance(2 * time.Minute)
	want(t, "outcomes of a job that another has", swept.snapshot().finishes, 0)
	cancelled := h.deliver(2, deliveredLate(time.Minute))
	advance(time.Second)
	h.order(2, job.OrderCancel)
	synctest.Wait()
	want(t, "cancelled", h.outcome(cancelled).Cancelled, true)
	released := h.deliver(3, deliveredLate(time.Minute))
	h.stop()
	advance(time.Minute)
	want(t, "released by a shutdown", h.outcome(released).Released, true)
}

func startsLateDeliveryAtOnce(t *testing.T) {
	var started atomic.Bool
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		started.Store(true)
		return blockUntilStopped(ctx, task, out)
	}, func(c *Config) { c.IgnoreLeaseExpiry = true })
	h.setRenew(func([]job.Lease) []error { return []error{errOutage} })
	h.deliver(1, deliveredLate(time.Minute))
	synctest.Wait()
	want(t, "started", started.Load(), true)
}

// askedAt delivers a job and returns when the source was asked to renew its lease in a minute,
// if the first call gets no answer.
func askedAt(t *testing.T, change ...func(*job.Claimed)) []time.Duration {
	h := newHarness(t, blockUntilStopped)
	var mu sync.Mutex
	var asked []time.Duration // guarded by mu
	start := time.Now()
	h.setHangs(func([]job.Lease) bool {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, time.Since(start).Truncate(time.Millisecond))
		return len(asked) == 1
	})
	rec := h.deliver(1, change...)
	advance(time.Minute)
	want(t, "still running", rec.running(), true)
	mu.Lock()
	defer mu.Unlock()
	return asked
}

// An engine may sweep 20 s after the last renewal.
func repeatsHungRenewal(t *testing.T) {
	asked := askedAt(t)
	want(t, "when the source was asked first", asked[0], 10*time.Second)
	want(t, "when it was asked again", asked[1], 16666*time.Millisecond)
}

func repeatsHungRenewalOfLongLease(t *testing.T) {
	asked := askedAt(t, func(c *job.Claimed) {
		c.Job.Policy.Timeouts.Lease = time.Hour
		c.Left = time.Hour
	})
	want(t, "when it was asked again", asked[1], 16666*time.Millisecond)
}

func waitsForSlowRenewal(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	h.setRenew(func(leases []job.Lease) []error {
		sleep(6 * time.Second)
		return make([]error, len(leases))
	})
	rec := h.deliver(1)
	advance(time.Minute + 5*time.Second)
	want(t, "still running", rec.running(), true)
	want(t, "the number of calls in 65 s", len(h.renewals()), 6)
}

func usesLateAnswers(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	h.setRenew(func(leases []job.Lease) []error {
		sleep(12 * time.Second)
		return make([]error, len(leases))
	})
	rec := h.deliver(1)
	advance(5 * time.Minute)
	want(t, "still running", rec.running(), true)
}

func ignoresLateFailure(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	h.setRenew(func([]job.Lease) []error {
		if len(h.renewals()) == 1 {
			sleep(8 * time.Second) // the second call is answered at once
			return []error{errOutage}
		}
		return []error{nil}
	})
	rec := h.deliver(1)
	advance(26 * time.Second)
	want(t, "the number of calls", len(h.renewals()), 2)
	want(t, "still running", rec.running(), true)
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
func boundsCallsOfLease(t *testing.T) {
	h := newHarness(t, blockUntilStopped, func(c *Config) { c.IgnoreLeaseExpiry = true })
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
	advance(5 * time.Minute)
	mu.Lock()
	defer mu.Unlock()
	for id, n := range calls {
		want(t, "calls that are out for "+id.String(), n, 2)
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
