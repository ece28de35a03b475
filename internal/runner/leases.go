package runner

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// renewal is one call that renews leases, and its answers.
type renewal struct {
	asked    time.Time // before the call: leases are counted from then
	attempts []*attempt
	errs     []error
}

// keepLeases renews all leases in one call each interval, and stops the work of
// those that could not be renewed before they end. It returns when ctx has ended
// and no call is out.
func (r *Runner) keepLeases(ctx context.Context) {
	answers := make(chan renewal) // of the call that is out
	out := 0                      // calls: at most one
	due := time.Now().Add(r.every())
	for {
		wake := earlier(due, r.firstLapse())
		timer := time.NewTimer(time.Until(wake))
		select {
		case <-ctx.Done():
			timer.Stop()
			for ; out > 0; out-- {
				<-answers
			}
			return
		case <-r.hurry:
			due = earlier(due, time.Now().Add(r.every()))
		case <-timer.C:
			if time.Since(wake) > stoodStill {
				r.askFirst(time.Now())
				due = wake
			}
			r.stopLapsed(time.Now())
			if time.Now().Before(due) {
				continue
			}
			due = time.Now().Add(r.every())
			if n := r.toRenew(time.Now()); out == 0 && len(n.attempts) > 0 {
				out++
				go func() { answers <- r.renew(ctx, n) }()
			}
		case n := <-answers:
			out--
			if !r.renewed(n) {
				due = earlier(due, time.Now().Add(r.every()/5))
			}
		}
		timer.Stop()
	}
}

// stoodStill is how late a wake-up says that the whole process, or the machine,
// was stopped for a while.
const stoodStill = 500 * time.Millisecond

// askFirst gives leases that ran out while we stood still a little longer: nobody
// has refused to renew them, and whether another has the job only the source knows.
func (r *Runner) askFirst(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.held {
		if at := a.lapsesAt(); !at.IsZero() && !at.After(now) {
			a.asked = now.Add(-a.claimed.Job.Policy.Timeouts.Lease * 2 / 3)
		}
	}
}

// toRenew are the attempts that have stood on their lease for an interval.
func (r *Runner) toRenew(now time.Time) renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := renewal{asked: now}
	for _, a := range r.held {
		if now.Sub(a.asked) >= r.interval {
			n.attempts = append(n.attempts, a)
		}
	}
	return n
}

func (r *Runner) renew(ctx context.Context, n renewal) renewal {
	leases := make([]job.Lease, len(n.attempts))
	for i, a := range n.attempts {
		leases[i] = a.claimed.Lease()
	}
	n.errs = r.cfg.Source.Renew(ctx, leases)
	return n
}

// renewed takes the answers to a renewal; false when it should be made again soon.
func (r *Runner) renewed(n renewal) bool {
	var failed error
	for i, a := range n.attempts {
		switch err := n.errs[i]; {
		case err == nil:
			r.extend(a, n.asked)
		case job.CodeOf(err) == job.LeaseLost:
			a.lost()
		default:
			failed = err
		}
	}
	if failed != nil {
		r.cfg.Log.Warn("leases could not be renewed", "err", failed)
	}
	return failed == nil
}

func (r *Runner) extend(a *attempt, asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a.asked = asked
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
		if at := a.lapsesAt(); !at.IsZero() && !at.After(now) {
			a.lapsed = true
			all = append(all, a)
		}
	}
	return all
}

// firstLapse is when the first lease is to be given up unless it is renewed; zero
// when there is none.
func (r *Runner) firstLapse() (first time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.held {
		first = earlier(first, a.lapsesAt())
	}
	return first
}

// lapsesAt is when work stops unless the lease is renewed: a sixth before its end,
// for the way of the delivery and for clocks that differ. Zero when it has stopped.
func (a *attempt) lapsesAt() time.Time {
	lease := a.claimed.Job.Policy.Timeouts.Lease
	if lease == 0 || a.lapsed {
		return time.Time{}
	}
	return a.asked.Add(lease - lease/6)
}

// hastenLocked makes renewals frequent enough for a lease of that length.
func (r *Runner) hastenLocked(lease time.Duration) {
	if lease > 0 && lease/3 < r.interval {
		r.interval = lease / 3
		notify(r.hurry)
	}
}

func (r *Runner) every() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.interval
}

// earlier is the earlier of two times; a zero time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
