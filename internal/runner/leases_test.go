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
	hold(t, []rule{
		{"leases that are due about then are renewed in one call", renewsTogether},
		{"without a lease to renew there is no call", renewsNothing},
		{"a renewal that is refused is a lost lease, and only that one", losesLeaseAtRenewal},
		{"a renewal that failed is made again soon", renewsAgainSoon},
		{"work whose lease cannot be renewed stops before it ends, and is handed back", stopsBeforeLapse},
		{"work goes on for as long as an outage lasts where only its source ends a lease", outlastsOutage},
		{"work that ignores this is handed back after its grace", handsBackAfterLapse},
		{"a renewal that does not answer stops the work as well", stopsWithoutAnswer},
		{"a lease is counted from before its renewal was asked for", countsFromAsking},
		{"a renewal that is answered late does not make a lease older", keepsNewerAnswer},
		{"a lease is counted from the commit that gave it: first it is renewed sooner", renewsSoonerAfterLateDelivery},
		{"a lease is counted from the commit that gave it: work stops sooner", lapsesSoonerAfterLateDelivery},
		{"a lease that ran out on its way is renewed before it is given up", renewsWhatRanOut},
		{"a source that hangs is asked again after a third of the lease", asksAgainWhenHung},
		{"a source that hangs for one lease does not hold up others", renewsOthersWhenHung},
		{"there are never two calls for one lease", callsOnceALease},
		{"a short lease is renewed three times in its length", renewsShortLeases},
		{"a short lease has others renewed no sooner, and ends with its job", renewsShortLeasesAlone},
		{"an end that cannot be stored yet keeps its lease", renewsWhileFinishing},
	})
}

func renewsTogether(t *testing.T) {
	h := open(t, busy)
	h.deliver(1)
	h.deliver(2)
	pass(2 * time.Second)
	h.deliver(3)
	pass(3 * time.Second)
	h.deliver(4)
	pass(5 * time.Second)
	want(t, "the number of calls after 10 s", len(h.renewals()), 1)
	want(t, "leases in the first", len(h.renewals()[0]), 3)
	pass(5 * time.Second)
	want(t, "the number of calls after 15 s", len(h.renewals()), 2)
	want(t, "leases in the second", len(h.renewals()[1]), 1)
	h.order(1, job.OrderCancel)
	pass(5 * time.Second)
	want(t, "the number of calls after 20 s", len(h.renewals()), 3)
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
	h.renewBy(func(leases []job.Lease) []error {
		errs := make([]error, len(leases))
		for i, l := range leases {
			if l.Job == (job.ID{15: 1}) {
				errs[i] = job.Errorf(job.LeaseLost, "another has it")
			}
		}
		return errs
	})
	lost, kept := h.deliver(1), h.deliver(2)
	pass(time.Minute)
	wantErr(t, why, exec.ErrLost)
	want(t, "finishes of the lost one", lost.now().tries, 0)
	want(t, "the other still running", kept.open(), true)
	want(t, "leases in the last call", len(h.renewals()[len(h.renewals())-1]), 1)
}

func renewsAgainSoon(t *testing.T) {
	h := open(t, busy)
	h.renewBy(func(leases []job.Lease) []error {
		if len(h.renewals()) < 4 {
			return []error{errOutage}
		}
		return make([]error, len(leases))
	})
	rec := h.deliver(1)
	pass(16 * time.Second)
	want(t, "the number of calls", len(h.renewals()), 4)
	pass(time.Minute)
	want(t, "still running", rec.open(), true)
}

func stopsBeforeLapse(t *testing.T) {
	var why error
	h := open(t, untilStopped(&why))
	h.renewBy(func([]job.Lease) []error { return []error{errOutage} })
	rec := h.deliver(1)
	pass(25*time.Second - 1)
	want(t, "running before its lease is about to end", rec.open(), true)
	pass(1)
	wantErr(t, why, exec.ErrLost)
	want(t, "handed back", h.ended(rec).HandedBack, true)
}

func outlastsOutage(t *testing.T) {
	var why error
	h := open(t, untilStopped(&why), func(c *Config) { c.IgnoreLeaseExpiry = true })
	h.renewBy(func([]job.Lease) []error { return []error{errOutage} })
	rec := h.deliver(1)
	pass(time.Hour)
	want(t, "running after an hour", rec.open(), true)
	taken := job.Errorf(job.LeaseLost, "it was taken")
	h.renewBy(func([]job.Lease) []error { return []error{taken} })
	pass(10 * time.Second)
	wantErr(t, why, exec.ErrLost)
}

func handsBackAfterLapse(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo))
	h.renewBy(func([]job.Lease) []error { return []error{errOutage} })
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
	h.renewBy(func([]job.Lease) []error {
		<-answer
		return []error{nil}
	})
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
	h.renewBy(func([]job.Lease) []error {
		if len(h.renewals()) == 1 {
			elapse(9 * time.Second)
			return []error{nil}
		}
		return []error{errOutage}
	})
	rec := h.deliver(1)
	pass(35*time.Second - 1) // asked after 10 s, answered after 19 s
	want(t, "running before its lease is about to end", rec.open(), true)
	pass(1)
	want(t, "handed back", h.ended(rec).HandedBack, true)
	wantErr(t, why, exec.ErrLost)
}

// The process stands still while a renewal is out, which was asked for long ago when its
// answer comes: that the lease is still held is known from the answer.
func keepsNewerAnswer(t *testing.T) {
	h := open(t, busy)
	rec := h.deliver(1)
	synctest.Wait()
	r := h.runner
	r.mu.Lock()
	a := r.held[job.Token{15: 1}]
	r.mu.Unlock()
	newer := time.Now()
	r.answered(a, newer.Add(-time.Hour), true)
	r.mu.Lock()
	from := a.lease.from
	r.mu.Unlock()
	want(t, "when the lease is counted from", from, newer)
	pass(time.Minute)
	want(t, "still running", rec.open(), true)
}

// late delivers a job so long after the commit that leased it.
func late(by time.Duration) func(*job.Claimed) {
	return func(c *job.Claimed) { c.Left = c.Job.Policy.Timeouts.Lease - by }
}

func renewsSoonerAfterLateDelivery(t *testing.T) {
	h := open(t, busy)
	h.deliver(1, late(6*time.Second))
	pass(4*time.Second - 1)
	want(t, "the number of calls", len(h.renewals()), 0)
	pass(1)
	want(t, "the number of calls", len(h.renewals()), 1)
}

func lapsesSoonerAfterLateDelivery(t *testing.T) {
	var why error
	h := open(t, untilStopped(&why))
	h.renewBy(func([]job.Lease) []error { return []error{errOutage} })
	rec := h.deliver(1, late(6*time.Second))
	pass(19*time.Second - 1)
	want(t, "running before its lease is about to end", rec.open(), true)
	pass(1)
	wantErr(t, why, exec.ErrLost)
}

func renewsWhatRanOut(t *testing.T) {
	h := open(t, busy)
	rec := h.deliver(1, late(time.Minute))
	synctest.Wait()
	want(t, "the number of calls", len(h.renewals()), 1)
	pass(time.Minute)
	want(t, "still running", rec.open(), true)
}

func asksAgainWhenHung(t *testing.T) {
	h := open(t, busy)
	var hung []time.Duration
	began := time.Now()
	h.hangBy(func([]job.Lease) bool {
		hung = append(hung, time.Since(began))
		return len(hung) == 1
	})
	rec := h.deliver(1)
	pass(time.Minute)
	want(t, "still running", rec.open(), true)
	want(t, "when the source was asked first", hung[0], 10*time.Second)
	want(t, "when it was asked again", hung[1], 22*time.Second) // after a third of the lease, and a pause
}

func renewsOthersWhenHung(t *testing.T) {
	h := open(t, busy)
	h.hangBy(func(leases []job.Lease) bool { return leases[0].Job == (job.ID{15: 1}) })
	stuck := h.deliver(1)
	pass(5 * time.Second)
	other := h.deliver(2)
	pass(time.Minute)
	want(t, "the one still running", stuck.open(), false)
	want(t, "the other still running", other.open(), true)
}

// A source that does not even return when it is told to.
func callsOnceALease(t *testing.T) {
	h := open(t, busy)
	answer := make(chan struct{})
	var mu sync.Mutex
	calls := map[job.ID]int{} // guarded by mu
	h.renewBy(func(leases []job.Lease) []error {
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
		pass(4 * time.Second)
	}
	pass(12 * time.Second)
	mu.Lock()
	defer mu.Unlock()
	for id, n := range calls {
		want(t, "calls that are out for "+id.String(), n, 1)
	}
	want(t, "leases that are asked for", len(calls), 3)
	close(answer)
}

func renewsShortLeasesAlone(t *testing.T) {
	h := open(t, busy)
	h.deliver(1)
	h.deliver(2, func(c *job.Claimed) { c.Job.Policy.Timeouts.Lease = time.Second })
	pass(5 * time.Second)
	h.order(2, job.OrderCancel)
	synctest.Wait()
	short := len(h.renewals())
	if short < 14 {
		t.Fatalf("in 5 s a lease of 1 s was renewed %d times", short)
	}
	pass(time.Minute)
	want(t, "renewals of the other in 65 s", len(h.renewals())-short, 6)
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
