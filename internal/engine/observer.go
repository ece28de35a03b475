package engine

import (
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Observer receives events of the engine, for metrics and traces. The engine calls its methods
// for every op, on goroutines that others wait for: they must be quick and must not block.
type Observer interface {
	// OpSettled reports an op that is on disk, and how long its caller waited.
	OpSettled(l Lane, took time.Duration)
	// BatchSettled reports a commit that is on disk, and its number of ops.
	BatchSettled(ops int)
	// OpRefused reports an op ("submit", "append", "cancel" …) that was not applied. It
	// includes submits that were not admitted.
	OpRefused(op string, code job.Code)
	// AttemptBegan reports an attempt that was given to a worker, and how long its job had
	// been ready.
	AttemptBegan(queue string, waited time.Duration)
	// AttemptEnded reports the end of an attempt, once it is on disk. ran is 0 if unknown.
	AttemptEnded(queue string, how Ending, ran time.Duration)
	// OutputStored reports bytes of output that are on disk.
	OutputStored(bytes int64)
	// LeaseSwept reports that a lease was swept: of a silent worker, or, if cancelled is true,
	// of a worker that did not follow a cancel.
	LeaseSwept(cancelled bool)
}

// Ending is the way in which an attempt ended.
type Ending uint8

// The endings of an attempt.
const (
	EndedSucceeded  Ending = iota
	EndedFailed            // and the job failed
	EndedRetried           // failed; the job is retried
	EndedWaited            // retried at no cost, because the upstream asked to wait
	EndedCancelled         // a cancel was requested
	EndedHandedBack        // its worker released the job
	EndedLost              // its worker went silent or died
	NumEndings             // the number of endings
)

var endingNames = [NumEndings]string{"succeeded", "failed", "retried", "waited", "cancelled", "handed_back", "lost"}

// String returns the ending's name.
func (e Ending) String() string { return endingNames[e] }

// String returns the lane's name.
func (l Lane) String() string { return laneNames[l] }

var laneNames = [NumLanes]string{"urgent", "output", "submit", "upkeep"}

// noObserver ignores all reports.
type noObserver struct{}

func (noObserver) OpSettled(Lane, time.Duration)              {}
func (noObserver) BatchSettled(int)                           {}
func (noObserver) OpRefused(string, job.Code)                 {}
func (noObserver) AttemptBegan(string, time.Duration)         {}
func (noObserver) AttemptEnded(string, Ending, time.Duration) {}
func (noObserver) OutputStored(int64)                         {}
func (noObserver) LeaseSwept(bool)                            {}

// Watchers returns how many watches and long-polls are open, and their bound.
func (e *Engine) Watchers() (now, limit int) { return e.hub.Watchers(), e.maxWatchers }

// observeBatch reports a batch that reached the disk at the given time.
func (e *Engine) observeBatch(pb *pendingBatch, at time.Time) {
	for _, p := range pb.ops {
		e.observer.OpSettled(p.lane, at.Sub(p.queuedAt))
		if op, err := opRefusal(p); err != nil {
			_ = e.observeRefusal(op, err)
		}
	}
	e.observer.BatchSettled(pb.batch.Len())
}

// observeRefusal reports a refusal and returns it. Other errors, such as a failed read, are only
// returned.
func (e *Engine) observeRefusal(op string, err error) error {
	if r, ok := errors.AsType[*job.Error](err); ok {
		e.observer.OpRefused(op, r.Code)
	}
	return err
}

// opRefusal returns the error of an op that was refused. It returns nil for submits, which their
// callers report, and for finishes of a sweep that came too late.
func opRefusal(p *pendingOp) (name string, err error) {
	switch op := p.op.(type) {
	case *store.Append:
		return "append", op.Err
	case *store.Finish:
		if !p.swept {
			return "finish", op.Err
		}
	case *store.Renew:
		return "renew", op.Err
	case *store.Cancel:
		return "cancel", op.Err
	case *store.Delete:
		return "delete", op.Err
	case *store.Retry:
		return "retry", op.Err
	case *store.Write:
		return "write", op.Err
	case *store.Pause:
		return "pause", op.Err
	}
	return "", nil
}

// endingOf returns the ending that an applied finish gave its attempt.
func endingOf(op *store.Finish, swept bool) Ending {
	switch {
	case op.State == job.Cancelled:
		return EndedCancelled
	case swept && (op.Lost || op.Unused):
		return EndedLost
	case op.State == job.Succeeded:
		return EndedSucceeded
	case op.State == job.Failed:
		return EndedFailed
	case op.State == job.Queued && op.Failure == nil:
		return EndedHandedBack
	case op.Refund:
		return EndedWaited
	}
	return EndedRetried
}
