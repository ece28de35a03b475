package engine

import (
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Observer is told what the engine does, so that somebody can count it. Its methods
// are called for every op, by goroutines that others wait for: they are quick and
// never block.
type Observer interface {
	// OpSettled tells of an op that is on disk, and since when it was waited for.
	OpSettled(l Lane, took time.Duration)
	// BatchSettled tells of a commit that is on disk, and how many ops it had.
	BatchSettled(ops int)
	// OpRefused tells of an op ("submit", "append", "cancel" …) that was not applied. A
	// submit may have been refused before it was an op.
	OpRefused(op string, code job.Code)
	// AttemptBegan tells of an attempt that was given to a worker, and for how long its job
	// had been ready.
	AttemptBegan(queue string, waited time.Duration)
	// AttemptEnded tells of the end of an attempt, once that is on disk. It ran for 0 where
	// nobody knows how long.
	AttemptEnded(queue string, how Ending, ran time.Duration)
	// OutputStored tells of so many bytes of output on disk.
	OutputStored(bytes int64)
	// LeaseSwept tells of a lease that a sweep has taken: from a silent worker, or from one
	// that did not follow a cancel.
	LeaseSwept(cancelled bool)
}

// Ending is how an attempt ended.
type Ending uint8

// The endings.
const (
	EndedSucceeded  Ending = iota
	EndedFailed            // and so did the job
	EndedRetried           // failed; the job is tried again
	EndedWaited            // told to wait; the job goes back, at no cost
	EndedCancelled         // because someone asked
	EndedHandedBack        // its worker stopped
	EndedLost              // its worker went silent, or died
	NumEndings             // how many there are
)

var endingNames = [NumEndings]string{"succeeded", "failed", "retried", "waited", "cancelled", "handed_back", "lost"}

// String is the ending's name.
func (e Ending) String() string { return endingNames[e] }

// String is the lane's name.
func (l Lane) String() string { return laneNames[l] }

var laneNames = [NumLanes]string{"urgent", "output", "submit", "upkeep"}

// nobody observes nothing.
type noObserver struct{}

func (noObserver) OpSettled(Lane, time.Duration)              {}
func (noObserver) BatchSettled(int)                           {}
func (noObserver) OpRefused(string, job.Code)                 {}
func (noObserver) AttemptBegan(string, time.Duration)         {}
func (noObserver) AttemptEnded(string, Ending, time.Duration) {}
func (noObserver) OutputStored(int64)                         {}
func (noObserver) LeaseSwept(bool)                            {}

// Watchers is how many watches and held requests there are, and may be.
func (e *Engine) Watchers() (now, most int) { return e.hub.Watchers(), e.maxWatchers }

// observe tells of a batch that was on disk at that time.
func (e *Engine) observeBatch(w *pendingBatch, at time.Time) {
	for _, p := range w.ops {
		e.observer.OpSettled(p.lane, at.Sub(p.queuedAt))
		if op, err := opRefusal(p); err != nil {
			_ = e.observeRefusal(op, err)
		}
	}
	e.observer.BatchSettled(w.batch.Len())
}

// refused tells of a refusal, and returns it. An error that is none (a caller who
// left, a disk that failed a read) is not told of.
func (e *Engine) observeRefusal(op string, err error) error {
	if r, ok := errors.AsType[*job.Error](err); ok {
		e.observer.OpRefused(op, r.Code)
	}
	return err
}

// refusal is why an op was not applied. Submits are not looked at: whoever asked for
// them tells of those. That a sweep came too late is nobody's refusal.
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

// endingOf is how an attempt ended by its finish, which was applied.
func endingOf(op *store.Finish, taken bool) Ending {
	switch {
	case op.State == job.Cancelled:
		return EndedCancelled
	case taken && (op.Lost || op.Unused):
		return EndedLost
	case op.State == job.Succeeded:
		return EndedSucceeded
	case op.State == job.Failed:
		return EndedFailed
	case op.State == job.Queued:
		return EndedHandedBack
	case op.Refund:
		return EndedWaited
	}
	return EndedRetried
}
