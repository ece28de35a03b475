package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	sweepEvery = time.Second
	sweepLimit = 500
	// maxStall is how late a tick may come, or how far the store's clock may jump, before it
	// counts as an outage: the workers' time then passed at another speed than time here.
	maxStall = 500 * time.Millisecond
	// dueRetryDelay is the pause after a due op that changed nothing.
	dueRetryDelay = store.ClockTolerance
)

// sweeper processes due times: of retries, lapsed leases, and cancels that a worker did not
// follow. After a start or an outage of this process it sweeps no lease until renewals were
// possible for two whole intervals, because the workers of a stalled process are not dead. One
// interval is too short: a healthy worker whose renewal failed retries within one interval, and
// its job may have been delivered late too.
type sweeper struct {
	e    *Engine
	wake chan struct{} // has a value when the next due time is earlier; never closed

	// Owned by run.
	abandonCheckedAt time.Time        // when abandoned jobs were last cancelled
	steppedAt        time.Time        // when the last read or commit of the sweep ended
	failed           bool             // the last sweep failed
	rejected         rejectedFinishes // see finishretry.go

	mu sync.Mutex
	// Guarded by mu.
	next         time.Time     // next due time, by the store's clock; zero if none
	healthySince time.Time     // since when this process has worked without an outage
	lastDrift    time.Duration // drift at the last sweep
}

func newSweeper(e *Engine) *sweeper {
	s := &sweeper{e: e, wake: make(chan struct{}, 1), healthySince: time.Now(), rejected: rejectedFinishes{}}
	s.lastDrift = s.drift()
	return s
}

// run sweeps until ctx ends. It logs errors; the next sweep retries.
func (s *sweeper) run(ctx context.Context) {
	// Parked jobs too, because their limits may have changed with the configuration.
	s.scheduleAt(s.e.store.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	s.markUnhealthy() // no worker could renew before now
	failing := repeatedError{log: s.e.log, what: "the sweep fails"}
	for {
		pause := s.delay()
		timer.Reset(pause)
		slept := time.Now()
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		if time.Since(slept) > pause+maxStall {
			s.markUnhealthy()
		}
		if err := s.sweep(ctx); ctx.Err() == nil {
			failing.report(err)
		}
	}
}

// delay returns the time until the next due time.
func (s *sweeper) delay() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.IsZero() {
		return sweepEvery
	}
	return min(sweepEvery, max(s.next.Sub(s.e.store.Now()), time.Millisecond))
}

// sweep processes everything that is due now.
func (s *sweeper) sweep(ctx context.Context) error {
	s.steppedAt = time.Now()
	if s.hasClockJumped() {
		s.markUnhealthy()
	}
	// A failed step does not stop the others: on a full disk nothing becomes due, but jobs
	// can still end.
	errs := []error{s.makeDue(ctx), s.endAttempts(ctx, store.CancelOnly)}
	if time.Since(s.abandonCheckedAt) >= abandonEvery {
		s.abandonCheckedAt = time.Now()
		errs = append(errs, s.e.cancelAllAbandoned(ctx))
	}
	if s.failed && errors.Join(errs...) == nil {
		s.markUnhealthy() // the outage ends now, and workers get time to renew
	}
	if s.maySweepLeases() {
		errs = append(errs, s.endAttempts(ctx, store.LapsedOnly))
	}
	err := errors.Join(errs...)
	s.failed = err != nil
	return err
}

// scheduleAt schedules a sweep at the given time of the store's clock.
func (s *sweeper) scheduleAt(at time.Time) {
	s.mu.Lock()
	earlier := s.next.IsZero() || at.Before(s.next)
	if earlier {
		s.next = at
	}
	s.mu.Unlock()
	if earlier {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// makeDue makes jobs ready, or expires them, when they are due.
func (s *sweeper) makeDue(ctx context.Context) error {
	s.mu.Lock()
	now := !s.next.IsZero() && !s.next.After(s.e.store.Now())
	if now {
		s.next = time.Time{}
	}
	s.mu.Unlock()
	idle := false
	limit, skipAtEnd := sweepLimit, false
	for more := now; more; {
		op := &store.Due{Limit: limit, SkipAtEnd: skipAtEnd, Failure: &job.Failure{
			Code: "queue_timeout", Message: "the job waited longer in its queue than it was allowed to", Retryable: true,
		}}
		err := s.e.doUrgent(ctx, op)
		s.recordStep(err)
		if err == nil {
			err = op.Err
		}
		if job.CodeOf(err) == job.Invalid && !skipAtEnd {
			// The end of one of the expiring jobs adds bad data. Halve the limit until that job
			// is alone; then it expires without that data.
			skipAtEnd = limit == 1
			limit = max(limit/2, 1)
			continue
		}
		if err != nil {
			s.scheduleAt(s.e.store.Now().Add(sweepEvery))
			if job.CodeOf(err) == job.NoSpace { // the disk has logged it
				return nil
			}
			return err
		}
		if skipAtEnd && len(op.Expired) > 0 {
			s.e.log.Error("a job expired without what follows from its end: the store refused that data", "job", op.Expired[0].ID)
		}
		limit, skipAtEnd = min(2*limit, sweepLimit), false
		more = op.More
		idle = op.Ready+len(op.Expired) == 0 && !more
	}
	if now {
		err := s.scheduleNext(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		// The clock of commits may be behind the clock of Now. If a commit found nothing due,
		// pause, or this would repeat without effect until the first clock catches up.
		if soon := s.e.store.Now().Add(dueRetryDelay); idle && !s.next.IsZero() && s.next.Before(soon) {
			s.next = soon
		}
		return err
	}
	return nil
}

// scheduleNext asks the store when something is due next.
func (s *sweeper) scheduleNext(ctx context.Context) error {
	err := s.readNext(ctx)
	s.recordStep(err)
	if err != nil {
		s.scheduleAt(s.e.store.Now().Add(sweepEvery))
	}
	return err
}

// readNext does the same as scheduleNext without the health check. Any goroutine may call it.
func (s *sweeper) readNext(ctx context.Context) error {
	ready, expires, err := s.e.store.NextDue(ctx)
	if err != nil {
		return err
	}
	for _, at := range []time.Time{ready, expires} {
		if !at.IsZero() {
			s.scheduleAt(at)
		}
	}
	return nil
}

// endAttempts ends all attempts of one selection: those with a lapsed lease, or those whose
// cancel was not followed within its grace.
//
// Runners end overrun and silent attempts themselves. They restart these clocks when an attempt
// has to wait for a scarce resource, which the store does not know. So the selections of overrun
// and silent attempts are only for workers without a runner.
func (s *sweeper) endAttempts(ctx context.Context, which store.RunningFilter) error {
	list, err := s.e.store.Running(ctx, which, job.ID{}, sweepLimit)
	s.recordStep(err)
	list = s.rejected.withoutPaused(list)
	if err != nil || len(list) == 0 || needsHealth(which) && !s.maySweepLeases() {
		return err
	}
	// Successful reads do not prove that writes work. If writes hang, no worker could renew, and
	// an idle process detects that only by its own write.
	if needsHealth(which) {
		err := s.e.doUrgent(ctx, &store.Presence{})
		s.recordStep(err)
		if err != nil || !s.maySweepLeases() {
			return err
		}
	}
	ops := make([]*pendingOp, len(list))
	for i := range list {
		op := s.e.sweepFinish(&list[i], which)
		if s.rejected[op.Lease] != nil {
			op = bareFinish(op, list[i].Job.Attempt)
		}
		ops[i] = &pendingOp{lane: laneUrgent, bytes: opBytes, op: op, swept: true}
		if err := s.e.lanes.put(ops[i]); err != nil {
			return err
		}
	}
	for i, p := range ops {
		if err := p.wait(ctx); err != nil {
			return err
		}
		op := p.op.(*store.Finish)
		if job.CodeOf(op.Err) != job.Invalid {
			delete(s.rejected, op.Lease)
		} else if s.rejected.add(op.Lease) {
			s.e.log.Error("an attempt could not be ended: the job will end as failed, without what follows from its end", "job", op.Lease.Job, "error", op.Err)
		}
		if op.Err == nil {
			s.e.observer.LeaseSwept(which == store.CancelOnly)
			s.e.log.Warn("a sweep took a lease", "job", list[i].Job.ID, "worker", list[i].Worker, "cancelled", which == store.CancelOnly, "why", failureCode(op), "state", op.State)
		}
	}
	s.recordStep(nil)
	return nil
}

// needsHealth reports whether an outage of this process could cause attempts to match the
// selection.
func needsHealth(which store.RunningFilter) bool {
	return which != store.AllRunning && which != store.CancelOnly
}

// sweepFinish makes the op by which a sweep, or a start, ends an attempt.
func (e *Engine) sweepFinish(r *store.Running, which store.RunningFilter) *store.Finish {
	var op *store.Finish
	switch {
	case which == store.CancelOnly:
		op = e.finishFor(&r.Job, job.Outcome{Cancelled: true}, r.HasOutput)
	case which == store.OverrunOnly:
		op = e.finishFor(&r.Job, job.Outcome{Fault: job.RunTimeout(r.Job.Policy.Timeouts.RunHard)}, r.HasOutput)
	case which == store.SilentOnly && r.LastOutputAt.IsZero():
		op = e.finishFor(&r.Job, job.Outcome{Fault: job.FirstOutputTimeout(r.Job.Policy.Timeouts.FirstOutput)}, r.HasOutput)
	case which == store.SilentOnly:
		op = e.finishFor(&r.Job, job.Outcome{Fault: job.IdleOutputTimeout(r.Job.Policy.Timeouts.IdleOutput)}, r.HasOutput)
	case !r.LeaseUsed: // the worker may never have received the job
		op = e.finishFor(&r.Job, job.Outcome{Released: true}, false)
		op.Unused = true
	default:
		op = e.lossFinish(&r.Job, r.HasOutput)
	}
	op.Lease = job.Lease{Job: r.Job.ID, Token: r.Token}
	op.OnlyIf = which
	return op
}

func failureCode(op *store.Finish) string {
	if op.Failure == nil {
		return ""
	}
	return op.Failure.Code
}
