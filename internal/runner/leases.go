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
	calls      int       // calls to renew it that are outstanding
	renewFirst bool      // the work starts after the first renewal
	stopped    bool      // no renewal succeeded in time, so the work was stopped
}

// maxCalls is the largest number of outstanding calls to renew a lease.
const maxCalls = 2

// newLease returns the lease of a job that is delivered now. A lease begins with the commit of
// its claim, so less than its length is left. If its first renewal is due already, the work starts
// only after that: otherwise it might still run when another worker gets the job.
func newLease(c *job.Claimed, cfg *Config, now time.Time) lease {
	l := lease{length: c.Job.Policy.Timeouts.Lease, renewEvery: cfg.RenewEvery, ignoreExpiry: cfg.IgnoreLeaseExpiry}
	if l.length == 0 {
		return l
	}
	l.renewEvery = min(cfg.RenewEvery, l.length/3)
	l.extendedAt = now.Add(min(c.Left-l.length, 0))
	l.renewAt = l.extendedAt.Add(l.renewEvery)
	l.renewFirst = !l.renewAt.After(now) && !l.ignoreExpiry
	return l
}

// stopAt returns when the work is asked to stop unless the lease is renewed: a sixth of its
// length before it expires. It is zero if no work runs, if it was stopped already, or if the
// runner ignores the expiry.
func (l *lease) stopAt() time.Time {
	if l.length == 0 || l.renewFirst || l.stopped || l.ignoreExpiry {
		return time.Time{}
	}
	return l.extendedAt.Add(l.length - l.length/6)
}

// killAt returns when stopped work must be over: shortly before the lease expires, because
// clocks differ and timers are late.
func (l *lease) killAt() time.Time { return l.extendedAt.Add(l.length - l.length/30) }

// repeatAfter is how long a call may take until the lease is renewed by another call too. An
// engine sweeps a lease only after renewals were possible for two intervals. So the second call
// leaves a third of an interval before that time, also if the first one hangs.
func (l *lease) repeatAfter() time.Duration { return l.renewEvery * 2 / 3 }

// wakeAt returns when the lease next needs attention; zero for never. Stopped work keeps its
// lease until its outcome is stored.
func (l *lease) wakeAt() time.Time {
	if l.calls == maxCalls || l.length == 0 {
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
			r.stopExpiring(now)
			for _, n := range r.dueRenewals(now) {
				outstanding++
				go func() { answers <- r.renew(ctx, n) }()
			}
		}
	}
}

// renewalGroup is what the leases of a call have in common. Leases of different lengths are not
// mixed, because the shortest one bounds the timeout of the call. Repeated calls have only leases
// whose first call has no answer yet: what makes these calls hang delays no other lease.
type renewalGroup struct {
	length time.Duration
	repeat bool
}

func (l *lease) group() renewalGroup { return renewalGroup{length: l.length, repeat: l.calls > 0} }

// dueRenewals returns the calls to make, one for each group. A call contains every lease of its
// group that is due now or soon.
func (r *Runner) dueRenewals(now time.Time) map[renewalGroup]renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	var calls map[renewalGroup]renewal
	for _, a := range r.leased {
		// Make a call only if some lease of its group is due.
		if l := &a.lease; l.due(now) && calls[l.group()].attempts == nil {
			if calls == nil {
				calls = map[renewalGroup]renewal{}
			}
			calls[l.group()] = renewal{sentAt: now, timeout: maxCalls * l.repeatAfter(), attempts: make([]*attempt, 0, len(r.leased))}
		}
	}
	if calls == nil {
		return nil
	}
	// Add leases that are due within a quarter of the interval. So leases of jobs that were
	// delivered within a few seconds stay in one call.
	for _, a := range r.leased {
		l := &a.lease
		if n, ok := calls[l.group()]; ok && l.due(now.Add(l.renewEvery/4)) {
			n.attempts = append(n.attempts, a)
			calls[l.group()] = n
			l.calls++
			l.renewAt = now.Add(l.repeatAfter())
		}
	}
	return calls
}

// due reports whether the lease must be renewed before the time at.
func (l *lease) due(at time.Time) bool {
	return l.length > 0 && l.calls < maxCalls && !l.renewAt.After(at)
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
// answer never moves extendedAt back, and its failure is of no interest after a later success.
func (r *Runner) recordRenewal(a *attempt, sentAt time.Time, renewed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &a.lease
	l.calls--
	switch {
	case renewed:
		if sentAt.After(l.extendedAt) {
			l.extendedAt = sentAt
		}
		l.renewAt = l.extendedAt.Add(l.renewEvery)
		if l.renewFirst {
			l.renewFirst = false
			close(a.leaseRenewed)
		}
	case sentAt.After(l.extendedAt):
		// The rest of the lease allows several retries.
		l.renewAt = earlier(l.renewAt, time.Now().Add(l.renewEvery/5))
	}
}

// stopExpiring stops the work whose lease is about to expire.
func (r *Runner) stopExpiring(now time.Time) {
	for a, killAt := range r.markExpiring(now) {
		r.cfg.Log.Warn("a lease could not be renewed in time, so its work is stopped", "job", a.claimed.Job.ID)
		a.onLeaseExpiring(killAt.Sub(now))
	}
}

// markExpiring returns the attempts to stop, with the times at which they must be over. It
// returns each attempt once.
func (r *Runner) markExpiring(now time.Time) map[*attempt]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all map[*attempt]time.Time
	for _, a := range r.leased {
		if at := a.lease.stopAt(); !at.IsZero() && !at.After(now) {
			a.lease.stopped = true
			if all == nil {
				all = map[*attempt]time.Time{}
			}
			all[a] = a.lease.killAt()
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
