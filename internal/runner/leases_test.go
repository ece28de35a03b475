package runner

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestLeases(t *testing.T) {
	hold(t, []rule{
		{"all leases older than an interval are renewed in one call each interval", renewsTogether},
		{"without a lease to renew there is no call", renewsNothing},
		{"a renewal that is refused is a lost lease, and only that one", losesLeaseAtRenewal},
		{"a renewal that failed is made again soon", renewsAgainSoon},
		{"work whose lease cannot be renewed stops before it ends, and is handed back", stopsBeforeLapse},
		{"work that ignores this is handed back after its grace", handsBackAfterLapse},
		{"a renewal that does not answer stops the work as well", stopsWithoutAnswer},
		{"a lease is counted from before its renewal was asked for", countsFromAsking},
		{"a short lease is renewed three times in its length", renewsShortLeases},
		{"an end that cannot be stored yet keeps its lease", renewsWhileFinishing},
	})
}

func renewsTogether(t *testing.T) {
	h := open(t, busy)
	h.deliver(1)
	h.deliver(2)
	pass(5 * time.Second)
	h.deliver(3)
	pass(5 * time.Second)
	want(t, "the number of calls", len(h.renewals()), 1)
	want(t, "leases in the first", len(h.renewals()[0]), 2)
	pass(10 * time.Second)
	want(t, "the number of calls", len(h.renewals()), 2)
	want(t, "leases in the second", len(h.renewals()[1]), 3)
	h.order(1, job.OrderCancel)
	pass(10 * time.Second)
	want(t, "leases in the third", len(h.renewals()[2]), 2)
}

func renewsNothing(t *testing.T) {
	h := open(t, busy)
	pass(time.Minute)
	rec := h.deliver(1)
	h.order(1, job.OrderCancel)
	pass(time.Minute)
	want(t, "cancelled", h.ended(rec).Cancelled, true)
	want(t, "the number of calls", len(h.renewals()), 0)
}

func losesLeaseAtRenewal(t *testing.T) {
	var why error
	h := open(t, untilStopped(&why))
	h.onRenew = func(leases []job.Lease) []error {
		errs := make([]error, len(leases))
		for i, l := range leases {
			if l.Job == (job.ID{15: 1}) {
				errs[i] = job.Errorf(job.LeaseLost, "another has it")
			}
		}
		return errs
	}
	lost, kept := h.deliver(1), h.deliver(2)
	pass(time.Minute)
	wantErr(t, why, exec.ErrLost)
	want(t, "finishes of the lost one", lost.now().tries, 0)
	want(t, "the other still running", kept.open(), true)
	want(t, "leases in the last call", len(h.renewals()[len(h.renewals())-1]), 1)
}

func renewsAgainSoon(t *testing.T) {
	h := open(t, busy)
	h.onRenew = func(leases []job.Lease) []error {
		if len(h.renewals()) < 4 {
			return []error{errOutage}
		}
		return make([]error, len(leases))
	}
	rec := h.deliver(1)
	pass(16 * time.Second)
	want(t, "the number of calls", len(h.renewals()), 4)
	pass(time.Minute)
	want(t, "still running", rec.open(), true)
}

func stopsBeforeLapse(t *testing.T) {
	var why error
	h := open(t, untilStopped(&why))
	h.onRenew = func([]job.Lease) []error { return []error{errOutage} }
	rec := h.deliver(1)
	pass(25*time.Second - 1)
	want(t, "running before its lease is about to end", rec.open(), true)
	pass(1)
	wantErr(t, why, exec.ErrLost)
	want(t, "handed back", h.ended(rec).HandedBack, true)
}

func handsBackAfterLapse(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo))
	h.onRenew = func([]job.Lease) []error { return []error{errOutage} }
	rec := h.deliver(1)
	pass(35*time.Second - 1)
	want(t, "running within its grace", rec.open(), true)
	pass(1)
	want(t, "handed back", h.ended(rec).HandedBack, true)
	close(letGo)
}

func stopsWithoutAnswer(t *testing.T) {
	var why error
	h := open(t, untilStopped(&why))
	answer := make(chan struct{})
	h.onRenew = func([]job.Lease) []error {
		<-answer
		return []error{nil}
	}
	rec := h.deliver(1)
	pass(25 * time.Second)
	wantErr(t, why, exec.ErrLost)
	want(t, "handed back", h.ended(rec).HandedBack, true)
	want(t, "the number of calls", len(h.renewals()), 1)
	close(answer)
}

func countsFromAsking(t *testing.T) {
	var why error
	h := open(t, untilStopped(&why))
	h.onRenew = func([]job.Lease) []error {
		if len(h.renewals()) == 1 {
			elapse(9 * time.Second)
			return []error{nil}
		}
		return []error{errOutage}
	}
	rec := h.deliver(1)
	pass(35*time.Second - 1) // asked after 10 s, answered after 19 s
	want(t, "running before its lease is about to end", rec.open(), true)
	pass(1)
	want(t, "handed back", h.ended(rec).HandedBack, true)
	wantErr(t, why, exec.ErrLost)
}

func renewsShortLeases(t *testing.T) {
	h := open(t, busy)
	pass(time.Second)
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Policy.Timeouts.Lease = 6 * time.Second })
	pass(time.Minute)
	want(t, "the number of calls", len(h.renewals()), 30)
	want(t, "still running", rec.open(), true)
}

func renewsWhileFinishing(t *testing.T) {
	h := open(t, nothing)
	var up atomic.Bool
	h.onFinish = func(job.Outcome) error {
		if up.Load() {
			return nil
		}
		return errOutage
	}
	rec := h.deliver(1)
	pass(25 * time.Second)
	want(t, "the number of renewals", len(h.renewals()), 2)
	up.Store(true)
	pass(time.Second)
	want(t, "handed back", h.ended(rec).HandedBack, false)
}
