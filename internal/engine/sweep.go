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
	// counts as an outage: time did not pass for the workers as it did here.
	maxStall = 500 * time.Millisecond
	// dueRetryDelay is the pause after a due op that changed nothing.
	dueRetryDelay = store.ClockTolerance
)

// sweeper does what becomes due: retries, lapsed leases, cancels that no worker followed. After
// a start or an outage of this process it takes no lease until renewals were possible for two
// whole intervals, because the workers of a process that stalls are not dead. Two, because a
// healthy worker whose renewal failed asks again within one interval, and its job may have been
// delivered late too.
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

// run sweeps until ctx ends. It logs what fails; the next sweep repeats it.
func (s *sweeper) run(ctx context.Context) {
	// Parked jobs too: their limits may have changed with the configuration.
	s.scheduleAt(s.e.store.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	s.markUnhealthy() // no worker could renew before
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
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.e.log.Error("a sweep failed and will be repeated", "error", err)
		}
	}
}

// delay returns how long until something may be due.
func (s *sweeper) delay() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.IsZero() {
		return sweepEvery
	}
	return min(sweepEvery, max(s.next.Sub(s.e.store.Now()), time.Millisecond))
}

// sweep does all that is due now.
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
		s.markUnhealthy() // the outage ends now: workers get time to renew
	}
	if s.maySweepLeases() {
		errs = append(errs, s.endAttempts(ctx, store.LapsedOnly))
	}
	err := errors.Join(errs...)
	s.failed = err != nil
	return err
}

// scheduleAt makes the sweeper run at that time, by the store's clock.
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

// makeDue makes jobs ready, and expires them, when their time has come.
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
			// One of the expiring jobs has bad data in what follows from its end. Halve the
			// limit until that job is alone; then it expires without what follows.
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
		// The clock of commits may be behind the one that Now returns. If a commit found
		// nothing due, pause, or this would repeat without effect until that clock arrives.
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

// readNext is scheduleNext without the health check. Any goroutine may call it.
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

// endAttempts ends one kind of attempts together: those with a lapsed lease, or with a cancel
// that was not followed within its grace.
//
// Runners end attempts that overrun or are silent themselves. They restart these clocks when an
// attempt had to wait for a scarce resource, which the store does not know. Selections of
// overrun and silent attempts are for workers without a runner.
func (s *sweeper) endAttempts(ctx context.Context, which store.RunningFilter) error {
	list, err := s.e.store.Running(ctx, which, job.ID{}, sweepLimit)
	s.recordStep(err)
	list = s.rejected.withoutPaused(list)
	if err != nil || len(list) == 0 || needsHealth(which) && !s.maySweepLeases() {
		return err
	}
	// Successful reads do not show that writes work. If writes hang, no worker could renew,
	// and an idle process finds that out only by a write of its own.
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

// needsHealth reports whether an outage of this process may be the reason why attempts match the
// selection.
func needsHealth(which store.RunningFilter) bool {
	return which != store.AllRunning && which != store.CancelOnly
}

// sweepFinish makes the finish by which a sweep, or a new start, ends an attempt.
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
	case !r.LeaseUsed: // the claim's answer may never have reached the worker
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
