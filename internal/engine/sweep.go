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
	// stall is how much later than asked a tick may come, or how far the store's clock
	// may jump, before we take it that time did not pass for the workers as it did for
	// us.
	maxStall = 500 * time.Millisecond
	// dueAgain is how long after a due that moved nothing another one is made.
	dueRetryDelay = store.ClockTolerance
)

// sweeper does what the clock asks for: due retries, lapsed leases, cancels that no worker
// followed. After a start or any trouble of this process it takes no lease until renewals
// could have been accepted for two whole intervals: when this process stalls, its workers
// are not dead. A healthy worker whose renewal failed asks again within one interval, and
// its delivery may have come late, too.
type sweeper struct {
	e    *Engine
	wake chan struct{} // has a value when the next due time moved; nobody closes it

	// Owned by run.
	abandonCheckedAt time.Time        // when abandoned jobs were last looked for
	steppedAt        time.Time        // when the last step was done
	failed           bool             // the last sweep failed
	rejected         rejectedFinishes // attempts that could not be ended

	mu sync.Mutex
	// Guarded by mu.
	next         time.Time     // by the store's clock; zero when nothing is due
	healthySince time.Time     // since when this process worked without trouble
	lastDrift    time.Duration // the store's clock against ours, at the last sweep
}

func newSweeper(e *Engine) *sweeper {
	s := &sweeper{e: e, wake: make(chan struct{}, 1), healthySince: time.Now(), rejected: rejectedFinishes{}}
	s.lastDrift = s.drift()
	return s
}

// run sweeps until ctx ends. What fails is logged, and done again by the next
// sweep.
func (s *sweeper) run(ctx context.Context) {
	s.scheduleAt(s.e.store.Now()) // also for parked jobs, whose limits may be others than before
	timer := time.NewTimer(0)
	defer timer.Stop()
	s.markUnhealthy() // before this no worker could renew
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

// pause is how long until there may be something to do.
func (s *sweeper) delay() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.IsZero() {
		return sweepEvery
	}
	return min(sweepEvery, max(s.next.Sub(s.e.store.Now()), time.Millisecond))
}

// once does all that is to be done now.
func (s *sweeper) sweep(ctx context.Context) error {
	s.steppedAt = time.Now()
	if s.jumped() {
		s.markUnhealthy()
	}
	// One that fails does not keep the others from being tried: on a full disk nothing
	// becomes due, but jobs still end.
	errs := []error{s.makeDue(ctx), s.endAttempts(ctx, store.CancelOnly)}
	if time.Since(s.abandonCheckedAt) >= abandonEvery {
		s.abandonCheckedAt = time.Now()
		errs = append(errs, s.e.cancelAllAbandoned(ctx))
	}
	if s.failed && errors.Join(errs...) == nil {
		s.markUnhealthy() // an outage lasts until a sweep that succeeds
	}
	if s.mayTakeLeases() {
		errs = append(errs, s.endAttempts(ctx, store.LapsedOnly))
	}
	err := errors.Join(errs...)
	s.failed = err != nil
	return err
}

// dueAt says that something will be due.
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

// due makes ready what the clock has made due.
func (s *sweeper) makeDue(ctx context.Context) error {
	s.mu.Lock()
	now := !s.next.IsZero() && !s.next.After(s.e.store.Now())
	if now {
		s.next = time.Time{}
	}
	s.mu.Unlock()
	idle := false
	limit, bare := sweepLimit, false
	for more := now; more; {
		op := &store.Due{Limit: limit, Failure: queueTimeout(), SkipAtEnd: bare}
		err := s.e.doUrgent(ctx, op)
		s.recordStep(err)
		if err == nil {
			err = op.Err
		}
		if job.CodeOf(err) == job.Invalid && !bare {
			// The store cannot take what follows from the end of one of the jobs that expire.
			// The others go first, and then that one expires without it.
			bare = limit == 1
			limit = max(limit/2, 1)
			continue
		}
		if err != nil {
			s.scheduleAt(s.e.store.Now().Add(sweepEvery))
			if job.CodeOf(err) == job.NoSpace { // that was said
				return nil
			}
			return err
		}
		if bare && len(op.Expired) > 0 {
			s.e.log.Error("a job expired without what follows from its end: the store could not take that", "job", op.Expired[0].ID)
		}
		limit, bare = min(2*limit, sweepLimit), false
		more = op.More
		idle = op.Ready+len(op.Expired) == 0 && !more
	}
	if now {
		err := s.scheduleNext(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		// The clock by which commits decide is behind the one that we were shown. Without a
		// pause we would ask in vain until it has come.
		if soon := s.e.store.Now().Add(dueRetryDelay); idle && !s.next.IsZero() && s.next.Before(soon) {
			s.next = soon
		}
		return err
	}
	return nil
}

// queueTimeout is what a job comes to that was never given to a worker in time.
func queueTimeout() *job.Failure {
	return &job.Failure{Code: "queue_timeout", Message: "the job waited longer in its queue than it was allowed to", Retryable: true}
}

// askNext asks the store what will be due next.
func (s *sweeper) scheduleNext(ctx context.Context) error {
	err := s.readNext(ctx)
	s.recordStep(err)
	if err != nil {
		s.scheduleAt(s.e.store.Now().Add(sweepEvery))
	}
	return err
}

// readNext is askNext for any goroutine.
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

// end ends the attempts of running jobs of one kind, in one go: those whose lease has
// lapsed, or whose cancel was not followed within its grace.
//
// Those that have overrun, or are silent, are ended by their own worker: a runner has
// these clocks, and starts them again when the work had to wait for something scarce,
// which the store does not know. The sweep ends them for workers without a runner.
func (s *sweeper) endAttempts(ctx context.Context, which store.RunningFilter) error {
	list, err := s.e.store.Running(ctx, which, job.ID{}, sweepLimit)
	s.recordStep(err)
	list = s.rejected.without(list)
	if err != nil || len(list) == 0 || needsHealth(which) && !s.mayTakeLeases() {
		return err
	}
	// Reads that answer say nothing of writes: where those stand still the workers could
	// not renew, wherever they are. An idle process finds out only by writing itself.
	if needsHealth(which) {
		err := s.e.doUrgent(ctx, &store.Presence{})
		s.recordStep(err)
		if err != nil || !s.mayTakeLeases() {
			return err
		}
	}
	asked := make([]*pendingOp, len(list))
	for i := range list {
		op := s.e.sweepFinish(&list[i], which)
		if s.rejected[op.Lease] != nil {
			op = bareFinish(op, list[i].Job.Attempt)
		}
		asked[i] = &pendingOp{lane: laneUrgent, bytes: opBytes, op: op, swept: true}
		if err := s.e.lanes.put(asked[i]); err != nil {
			return err
		}
	}
	for i, p := range asked {
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
			s.e.log.Warn("a lease was taken", "job", list[i].Job.ID, "worker", list[i].Worker, "cancelled", which == store.CancelOnly, "why", failureCode(op), "state", op.State)
		}
	}
	s.recordStep(nil)
	return nil
}

// needsHealth says whether the jobs of a selection may owe it to a trouble of ours.
func needsHealth(which store.RunningFilter) bool {
	return which != store.AllRunning && which != store.CancelOnly
}

// taken is the finish by which a sweep, or a new start, ends an attempt.
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
	case !r.LeaseUsed: // the answer to the claim may never have reached the worker
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
