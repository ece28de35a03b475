package runner

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The first and the largest delay before a retry of a failed write. The delay doubles with each
// retry.
const (
	minRetryDelay = 50 * time.Millisecond
	maxRetryDelay = time.Second
)

// storeOutcome stores the outcome and then closes the attempt. No goroutine waits for the write.
// Only a failed write gets a goroutine, for its retries.
func (a *attempt) storeOutcome() {
	a.r.cfg.Source.FinishAsync(a.claimed.Lease(), a.outcome, func(err error) {
		if err == nil {
			a.close(&a.outcome)
			return
		}
		// The callback must not block, so retries need a goroutine.
		go func() {
			a.retryOutcome(err)
			a.close(&a.outcome)
		}()
	})
}

// retryOutcome repeats the write of an outcome that failed with err. If the store refuses the
// outcome for good, the attempt fails with a fault instead, so that the job does not stay
// running.
func (a *attempt) retryOutcome(err error) {
	err = a.retry(err, a.finishCall(a.outcome))
	if isRefusal(err) && job.CodeOf(err) != job.LeaseLost {
		a.r.cfg.Log.Error("an outcome was refused", "job", a.claimed.Job.ID, "err", err)
		// Without the output too, because the store may have refused the output.
		write := a.finishCall(job.Outcome{Fault: refusedEnd(err)})
		err = a.retry(write(a.r.writeCtx), write)
	}
	switch {
	case err == nil:
	case job.CodeOf(err) == job.LeaseLost:
		a.r.cfg.Log.Info("an outcome came too late: the job has another worker, or has ended", "job", a.claimed.Job.ID)
	default:
		a.r.cfg.Log.Error("an outcome could not be stored; the job's lease will expire", "job", a.claimed.Job.ID, "err", err)
	}
}

// finishCall returns a function that writes the outcome o.
func (a *attempt) finishCall(o job.Outcome) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := a.r.cfg.Source.Finish(ctx, a.claimed.Lease(), o)
		return err
	}
}

// retry repeats a write that failed with err, until it succeeds or is refused, the lease is
// lost, or a shutdown gives up.
func (a *attempt) retry(err error, write func(context.Context) error) error {
	for delay := minRetryDelay; err != nil && !isRefusal(err); delay = min(2*delay, maxRetryDelay) {
		if delay == minRetryDelay {
			a.r.cfg.Log.Warn("a write failed; it is repeated until it succeeds", "job", a.claimed.Job.ID, "err", err)
		}
		if !a.waitBeforeRetry(delay) {
			return err
		}
		err = write(a.r.writeCtx)
	}
	return err
}

// waitBeforeRetry waits for d. It returns false if the write must not be retried.
func (a *attempt) waitBeforeRetry(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.r.writeCtx.Done():
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.leaseLost
}

// isRefusal reports whether err is final: the same write would be refused again.
func isRefusal(err error) bool {
	switch job.CodeOf(err) {
	case "", job.Internal, job.Unavailable, job.Overloaded, job.NoSpace, job.ShuttingDown:
		return false
	}
	return true
}
