package runner

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// lease is the runner's view of an attempt's lease.
type lease struct {
	// set once
	length       time.Duration // 0 for a lease that does not expire
	renewEvery   time.Duration // between renewals
	ignoreExpiry bool          // from [Config.IgnoreLeaseExpiry]

	// guarded by the runner's mu
	extendedAt time.Time // the lease expires length after this
	renewAt    time.Time // when the next renewal is due
	renewing   bool      // a call to renew it is outstanding
	stopped    bool      // no renewal succeeded in time, so the work was stopped
}

// newLease returns the lease of a job that is delivered now. A lease begins with the commit of
// its claim, so the delivery time is subtracted. But at least a third of the lease is assumed to
// be left: only the source knows whether a lease is void, and the first renewal asks the source.
func newLease(c *job.Claimed, every time.Duration, now time.Time) lease {
	l := lease{length: c.Job.Policy.Timeouts.Lease, renewEvery: every}
	if l.length == 0 {
		return l
	}
	l.renewEvery = min(every, l.length/3)
	// Without this minimum, a late delivery would stop the work before its first renewal.
	l.extendedAt = now.Add(-min(max(l.length-c.Left, 0), l.ageAtLastThird()))
	l.renewAt = l.extendedAt.Add(l.renewEvery)
	return l
}

// ageAtLastThird returns the age at which a third of the lease is left.
func (l *lease) ageAtLastThird() time.Duration { return l.length * 2 / 3 }

// stopAt returns when the work stops unless the lease is renewed: a sixth of its length before
// it expires, because clocks differ. It is zero if the work was stopped already, or if the
// runner ignores the expiry.
func (l *lease) stopAt() time.Time {
	if l.length == 0 || l.stopped || l.ignoreExpiry {
		return time.Time{}
	}
	return l.extendedAt.Add(l.length - l.length/6)
}

// wakeAt returns when the lease next needs attention; zero for never. Stopped work keeps its
// lease until its outcome is stored.
func (l *lease) wakeAt() time.Time {
	if l.renewing || l.length == 0 {
		return l.stopAt()
	}
	return earlier(l.renewAt, l.stopAt())
}

// renewal is one call to Source.Renew and its answers.
type renewal struct {
	sentAt   time.Time     // before the call; a renewed lease begins then
	timeout  time.Duration // timeout of the call
	attempts []*attempt
	errs     []error
}

// renewLeases renews each lease when it is due, in one call with others that are due soon. It
// stops work whose lease could not be renewed in time. It returns when ctx has ended and no call
// is outstanding.
func (r *Runner) renewLeases(ctx context.Context) {
	answers := make(chan renewal)
	outstanding := 0 // calls without an answer yet
	defer func() {
		for ; outstanding > 0; outstanding-- {
			<-answers
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wake := r.nextWakeAt()
		if wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-ctx.Done():
			return
		case n := <-answers:
			outstanding--
			r.handleRenewal(n)
		case <-r.wakeSooner:
		case <-timer.C:
			now := time.Now()
			if now.Sub(wake) > pauseThreshold {
				r.extendAfterPause(now)
			}
			r.stopExpiring(now)
			for _, n := range r.dueRenewals(now) {
				outstanding++
				go func() { answers <- r.renew(ctx, n) }()
			}
		}
	}
}

// pauseThreshold is the minimum delay of a wake-up that shows that the process, or the whole
// machine, was suspended.
const pauseThreshold = 500 * time.Millisecond

// extendAfterPause handles leases that expired while the process was suspended. It assumes that
// a third of their length is left, so that they are renewed before their work is stopped. Only
// the source knows whether another worker has the job now.
func (r *Runner) extendAfterPause(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.leased {
		if at := a.lease.stopAt(); !at.IsZero() && !at.After(now) {
			a.lease.extendedAt = now.Add(-a.lease.ageAtLastThird())
		}
	}
}

// dueRenewals returns the calls to make, one for each length of lease. A call contains every
// lease of its length that is due now or soon. Leases of different lengths are not mixed,
// because the shortest one bounds the timeout of the call.
func (r *Runner) dueRenewals(now time.Time) map[time.Duration]renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	var calls map[time.Duration]renewal
	for _, a := range r.leased {
		// Make a call only if some lease of its length is due.
		if l := &a.lease; l.due(now) && calls[l.length].attempts == nil {
			if calls == nil {
				calls = map[time.Duration]renewal{}
			}
			calls[l.length] = renewal{sentAt: now, timeout: l.length / 3, attempts: make([]*attempt, 0, len(r.leased))}
		}
	}
	if calls == nil {
		return nil
	}
	// Add leases that are due within a quarter of the interval. So leases of jobs that were
	// delivered within a few seconds stay in one call.
	for _, a := range r.leased {
		l := &a.lease
		if n, ok := calls[l.length]; ok && l.due(now.Add(l.renewEvery/4)) {
			l.renewing = true
			n.attempts = append(n.attempts, a)
			calls[l.length] = n
		}
	}
	return calls
}

// due reports whether the lease must be renewed before the time at. A lease with an outstanding
// call is never due.
func (l *lease) due(at time.Time) bool {
	return l.length > 0 && !l.renewing && !l.renewAt.After(at)
}

// renew makes one call. If the source does not answer in time, the call is repeated later.
func (r *Runner) renew(ctx context.Context, n renewal) renewal {
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	leases := make([]job.Lease, len(n.attempts))
	for i, a := range n.attempts {
		leases[i] = a.claimed.Lease()
	}
	n.errs = r.cfg.Source.Renew(ctx, leases)
	return n
}

// handleRenewal processes the answers of one call.
func (r *Runner) handleRenewal(n renewal) {
	var failed error
	for i, a := range n.attempts {
		err := n.errs[i]
		// The lease begins before the call, because the store may have renewed it at any time
		// since.
		r.recordRenewal(a, n.sentAt, err == nil)
		switch {
		case err == nil:
		case job.CodeOf(err) == job.LeaseLost:
			a.onLeaseLost()
		default:
			failed = err
		}
	}
	if failed != nil {
		r.cfg.Log.Warn("leases could not be renewed", "err", failed)
	}
}

// recordRenewal stores the answer for one lease. A failed renewal is repeated soon. A late
// answer never moves extendedAt back.
func (r *Runner) recordRenewal(a *attempt, sentAt time.Time, renewed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &a.lease
	l.renewing = false
	if !renewed {
		// The rest of the lease allows several retries.
		l.renewAt = time.Now().Add(l.renewEvery / 5)
		return
	}
	// extendAfterPause may have set a later time while the call was outstanding.
	if sentAt.After(l.extendedAt) {
		l.extendedAt = sentAt
	}
	l.renewAt = l.extendedAt.Add(l.renewEvery)
}

// stopExpiring stops the work whose lease is about to expire.
func (r *Runner) stopExpiring(now time.Time) {
	for _, a := range r.markExpiring(now) {
		r.cfg.Log.Warn("a lease could not be renewed in time, so its work is stopped", "job", a.claimed.Job.ID)
		a.onLeaseExpiring()
	}
}

// markExpiring returns the attempts to stop. It returns each attempt once.
func (r *Runner) markExpiring(now time.Time) []*attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*attempt
	for _, a := range r.leased {
		if at := a.lease.stopAt(); !at.IsZero() && !at.After(now) {
			a.lease.stopped = true
			all = append(all, a)
		}
	}
	return all
}

// nextWakeAt returns when the first lease needs attention; zero for never.
func (r *Runner) nextWakeAt() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeAt = time.Time{}
	for _, a := range r.leased {
		r.wakeAt = earlier(r.wakeAt, a.lease.wakeAt())
	}
	return r.wakeAt
}

// addLeaseLocked starts renewing the lease of a. It wakes renewLeases only if this lease is due
// before all others, because a wake-up for every job is expensive.
func (r *Runner) addLeaseLocked(a *attempt) {
	r.leased[a.claimed.Token] = a
	if at := a.lease.wakeAt(); !at.IsZero() && (r.wakeAt.IsZero() || at.Before(r.wakeAt)) {
		r.wakeAt = at
		notify(r.wakeSooner)
	}
}

// earlier returns the earlier of two times, where zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
