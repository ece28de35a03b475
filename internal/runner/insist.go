package runner

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// How long to wait before a write that failed is made again.
const (
	firstRetry   = 50 * time.Millisecond
	slowestRetry = time.Second
)

// finish has the end of the attempt stored, and lets go of the attempt once it is.
// Nobody waits for that: only an end that is not taken at once gets a goroutine.
func (a *attempt) finish() {
	a.r.cfg.Source.FinishAsync(a.claimed.Lease(), a.end, func(err error) {
		if err == nil {
			a.over(&a.end)
			return
		}
		go func() {
			a.finishStill(err)
			a.over(&a.end)
		}()
	})
}

// finishStill goes on where an end was not stored. One that the store will never take
// becomes a failure that says so: no job is left running for what it came to.
func (a *attempt) finishStill(err error) {
	err = a.insist(err, a.storing(a.end))
	if refused(err) && job.CodeOf(err) != job.LeaseLost {
		a.r.cfg.Log.Error("an end was refused", "job", a.claimed.Job.ID, "err", err)
		write := a.storing(job.Outcome{Fault: refusedEnd(err)})
		err = a.insist(write(a.r.base), write)
	}
	switch {
	case err == nil:
	case job.CodeOf(err) == job.LeaseLost:
		a.r.cfg.Log.Info("an end came too late: the job has another worker, or has ended", "job", a.claimed.Job.ID)
	default:
		a.r.cfg.Log.Error("an end could not be stored; the job's lease will lapse", "job", a.claimed.Job.ID, "err", err)
	}
}

// storing is the write of an end.
func (a *attempt) storing(o job.Outcome) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := a.r.cfg.Source.Finish(ctx, a.claimed.Lease(), o)
		return err
	}
}

// insist makes a write that came to err again until it is done or refused, or the lease
// is lost, or a shutdown gives up.
func (a *attempt) insist(err error, write func(context.Context) error) error {
	for delay := firstRetry; err != nil && !refused(err); delay = min(2*delay, slowestRetry) {
		if delay == firstRetry {
			a.r.cfg.Log.Warn("a write failed and is made again until it succeeds", "job", a.claimed.Job.ID, "err", err)
		}
		if !a.pause(delay) {
			return err
		}
		err = write(a.r.base)
	}
	return err
}

// pause waits before another try; false when there should be none.
func (a *attempt) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.r.base.Done():
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.isLost
}

// refused says whether a write was refused for good: the same would be again.
func refused(err error) bool {
	switch job.CodeOf(err) {
	case "", job.Internal, job.Unavailable, job.Overloaded, job.NoSpace, job.ShuttingDown:
		return false
	}
	return true
}
