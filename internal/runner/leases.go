package runner

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// lease is what a runner knows of the lease of an attempt.
type lease struct {
	// set once
	length time.Duration // 0 for one that does not end
	every  time.Duration // between renewals
	held   bool          // until the source says that it is lost; see [Config.IgnoreLeaseExpiry]

	// guarded by the runner's mu
	from    time.Time // the lease ends length after this
	renewAt time.Time // when the next renewal is due
	calling bool      // a call that renews it has not returned
	lapsed  bool      // no renewal came in time: the work was told to stop
}

// leaseOf is the lease of a job that was delivered now. It is counted from the commit
// that gave it: what the delivery took is gone. One that has little left gets a last
// third, in which it is renewed at once: it is void only when its source says so.
func leaseOf(c *job.Claimed, every time.Duration, now time.Time) lease {
	l := lease{length: c.Job.Policy.Timeouts.Lease, every: every}
	if l.length == 0 {
		return l
	}
	l.every = min(every, l.length/3)
	l.from = now.Add(-min(max(l.length-c.Left, 0), l.lastThird()))
	l.renewAt = l.from.Add(l.every)
	return l
}

// lastThird is the age at which a third of the lease is left.
func (l *lease) lastThird() time.Duration { return l.length * 2 / 3 }

// lapsesAt is when work stops unless its lease is renewed: a sixth before the lease
// ends, for clocks that differ. Zero when the work has been stopped, and where only the
// source ends a lease.
func (l *lease) lapsesAt() time.Time {
	if l.length == 0 || l.lapsed || l.held {
		return time.Time{}
	}
	return l.from.Add(l.length - l.length/6)
}

// wakesAt is when there is something to do for the lease; zero for never. Work that
// was stopped keeps its lease until its end is stored.
func (l *lease) wakesAt() time.Time {
	if l.calling || l.length == 0 {
		return l.lapsesAt()
	}
	return earlier(l.renewAt, l.lapsesAt())
}

// early is how long before it is due a lease may be renewed, so as to share a call.
func (l *lease) early() time.Duration { return l.every / 4 }

// renewal is one call that renews leases, and its answers.
type renewal struct {
	asked    time.Time     // before the call: leases are counted from then
	limit    time.Duration // how long the call may take
	attempts []*attempt
	errs     []error
}

// keepLeases renews each lease when it is due, together with those that are due about
// then, and stops the work of those that could not be renewed before they end. It
// returns when ctx has ended and no call is out.
func (r *Runner) keepLeases(ctx context.Context) {
	answers := make(chan renewal) // of the calls that are out
	out := 0                      // calls
	defer func() {
		for ; out > 0; out-- {
			<-answers
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wake := r.nextWake()
		if wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-ctx.Done():
			return
		case n := <-answers:
			out--
			r.renewed(n)
		case <-r.sooner:
		case <-timer.C:
			now := time.Now()
			if now.Sub(wake) > stoodStill {
				r.askFirst(now)
			}
			r.stopLapsed(now)
			for _, n := range r.toRenew(now) {
				out++
				go func() { answers <- r.renew(ctx, n) }()
			}
		}
	}
}

// stoodStill is how late a wake-up says that the whole process, or the machine,
// was stopped for a while.
const stoodStill = 500 * time.Millisecond

// askFirst gives leases that ran out while the process stood still a last third, in which
// they are renewed: only the source knows whether another worker has the job by now.
func (r *Runner) askFirst(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.held {
		if at := a.lease.lapsesAt(); !at.IsZero() && !at.After(now) {
			a.lease.from = now.Add(-a.lease.lastThird())
		}
	}
}

// toRenew are the calls to make: of the leases that are due, and of those that are due
// about then. Leases of another length have a call of their own, for its time is
// bounded by the shortest.
func (r *Runner) toRenew(now time.Time) map[time.Duration]renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	var calls map[time.Duration]renewal
	for _, a := range r.held {
		if l := &a.lease; l.due(now) && calls[l.length].attempts == nil {
			if calls == nil {
				calls = map[time.Duration]renewal{}
			}
			calls[l.length] = renewal{asked: now, limit: l.length / 3, attempts: make([]*attempt, 0, len(r.held))}
		}
	}
	if calls == nil {
		return nil
	}
	for _, a := range r.held {
		l := &a.lease
		if n, ok := calls[l.length]; ok && l.due(now.Add(l.early())) {
			l.calling = true
			n.attempts = append(n.attempts, a)
			calls[l.length] = n
		}
	}
	return calls
}

// due says whether the lease is to be renewed by that time. While a call for it is out
// there is no second one.
func (l *lease) due(at time.Time) bool {
	return l.length > 0 && !l.calling && !l.renewAt.After(at)
}

// renew makes one call. A source that does not answer in time is asked again later.
func (r *Runner) renew(ctx context.Context, n renewal) renewal {
	ctx, cancel := context.WithTimeout(ctx, n.limit)
	defer cancel()
	leases := make([]job.Lease, len(n.attempts))
	for i, a := range n.attempts {
		leases[i] = a.claimed.Lease()
	}
	n.errs = r.cfg.Source.Renew(ctx, leases)
	return n
}

// renewed takes the answers to a renewal.
func (r *Runner) renewed(n renewal) {
	var failed error
	for i, a := range n.attempts {
		err := n.errs[i]
		r.answered(a, n.asked, err == nil)
		switch {
		case err == nil:
		case job.CodeOf(err) == job.LeaseLost:
			a.lost()
		default:
			failed = err
		}
	}
	if failed != nil {
		r.cfg.Log.Warn("leases could not be renewed", "err", failed)
	}
}

// answered notes the answer to a renewal. One that failed is made again soon. A late
// answer never makes the lease older than it is known to be.
func (r *Runner) answered(a *attempt, asked time.Time, renewed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &a.lease
	l.calling = false
	if !renewed {
		l.renewAt = time.Now().Add(l.every / 5)
		return
	}
	if asked.After(l.from) {
		l.from = asked
	}
	l.renewAt = l.from.Add(l.every)
}

// stopLapsed stops the work whose lease is about to end.
func (r *Runner) stopLapsed(now time.Time) {
	for _, a := range r.takeLapsed(now) {
		r.cfg.Log.Warn("a lease could not be renewed in time, so its work is stopped", "job", a.claimed.Job.ID)
		a.lapse()
	}
}

// takeLapsed are the attempts to stop; each is taken once.
func (r *Runner) takeLapsed(now time.Time) []*attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*attempt
	for _, a := range r.held {
		if at := a.lease.lapsesAt(); !at.IsZero() && !at.After(now) {
			a.lease.lapsed = true
			all = append(all, a)
		}
	}
	return all
}

// nextWake is when the first lease has something to be done; zero for never. Until then
// keepLeases sleeps.
func (r *Runner) nextWake() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wake = time.Time{}
	for _, a := range r.held {
		r.wake = earlier(r.wake, a.lease.wakesAt())
	}
	return r.wake
}

// holdLocked takes an attempt among those whose leases are kept. Only one that is due
// before all others wakes keepLeases: that is rare, and a wake-up for every job is dear.
func (r *Runner) holdLocked(a *attempt) {
	r.held[a.claimed.Token] = a
	if at := a.lease.wakesAt(); !at.IsZero() && (r.wake.IsZero() || at.Before(r.wake)) {
		r.wake = at
		notify(r.sooner)
	}
}

// earlier is the earlier of two times; a zero time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
