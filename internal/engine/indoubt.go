package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// A batch is in doubt if its sync could not find out whether it is stored. All batches that were
// applied after it are in doubt too. The settler leaves them to the loop, which applies them
// again, in order and before anything else. None of their ops has been answered yet.

func (l *lanes) addInDoubt(pb *pendingBatch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inDoubtBatches = append(l.inDoubtBatches, pb)
	l.signal()
}

func (l *lanes) hasInDoubt() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.inDoubtBatches) > 0
}

// outcomesKnown reports whether every applied batch is either on disk or in doubt.
func (l *lanes) outcomesKnown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsynced == len(l.inDoubtBatches)
}

// takeInDoubt removes and returns the batches in doubt. Call it once outcomesKnown is true.
func (l *lanes) takeInDoubt() []*pendingBatch {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.inDoubtBatches
	l.inDoubtBatches = nil
	l.unsynced -= len(list)
	return list
}

// awaitOutcomes returns once every applied batch is settled. It applies batches in doubt again.
func (e *Engine) awaitOutcomes(ctx context.Context) {
	for !e.lanes.outcomesKnown() {
		<-e.lanes.wake
	}
	e.recoverInDoubt(ctx, e.lanes.takeInDoubt())
}

// recoverInDoubt applies batches in doubt again and answers each.
func (e *Engine) recoverInDoubt(ctx context.Context, list []*pendingBatch) {
	if len(list) == 0 {
		return
	}
	if outage := slices.ContainsFunc(list, func(pb *pendingBatch) bool { return !pb.outdated }); outage {
		e.recovering = true
		e.markStoreFailing() // again, because a batch that was applied meanwhile may have ended the outage
	}
	for _, pb := range list {
		if pb.err == nil {
			e.reapply(ctx, pb)
		}
		e.answerBatch(pb)
	}
	if e.fatal == nil && e.recovering {
		e.storeFailing.Store(false)
		e.sweeper.markUnhealthy() // the outage ends now, and workers get time to renew
	}
	e.recovering = false
	e.lanes.signal()
}

// reapply applies a batch in doubt until its outcome is known.
func (e *Engine) reapply(ctx context.Context, pb *pendingBatch) {
	pause := minBackoff
	for began := time.Now(); ; pause = min(2*pause, maxBackoff) {
		synced, err := e.apply(ctx, pb.batch, applyOptions{})
		if errors.Is(err, store.ErrFull) { // a full store never refuses a batch that it has applied
			pb.err = err
			e.trimForFullDisk(ctx, pb)
			synced, err = pb.synced, pb.err
		}
		pb.synced, pb.err = synced, err
		if pb.err == nil {
			e.assumeDurable(pb)
			pb.err = e.sync(pb)
		}
		if !errors.Is(pb.err, store.ErrUnknown) {
			if pb.err != nil && e.fatal == nil {
				e.fatal = pb.err // the later batches depend on it and cannot be applied
			}
			return
		}
		if ctx.Err() != nil && time.Since(began) > stopTimeout {
			pb.err = e.giveUpInDoubt(pb.err)
			return
		}
		time.Sleep(pause)
	}
}

// giveUpInDoubt leaves the outcome of a batch unknown, because the server is stopping. Nothing
// may be applied after it.
func (e *Engine) giveUpInDoubt(err error) error {
	e.fatal = job.Wrapf(job.Unavailable, err, "the store cannot be reached, and the server is stopping: whether the request was stored is not known")
	return e.fatal
}
