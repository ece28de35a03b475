package engine

import (
	"context"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// A batch is in doubt when its sync did not learn whether it is stored, and so is each
// that was applied behind it. The settler leaves them to the loop, which applies them
// again, in their order and before anything else. Nobody was told of them.

// doubt notes a batch in doubt.
func (l *lanes) addInDoubt(w *pendingBatch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inDoubtBatches = append(l.inDoubtBatches, w)
	l.signal()
}

// inDoubt says whether any batch is.
func (l *lanes) hasInDoubt() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.inDoubtBatches) > 0
}

// settled says whether it is known of every batch that it is on disk, or in doubt.
func (l *lanes) outcomesKnown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsynced == len(l.inDoubtBatches)
}

// takeDoubted removes and returns the batches in doubt, once all are settled.
func (l *lanes) takeInDoubt() []*pendingBatch {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.inDoubtBatches
	l.inDoubtBatches = nil
	l.unsynced -= len(list)
	return list
}

// settleBefore returns once it is known what became of every batch that was applied.
func (e *Engine) awaitOutcomes(ctx context.Context) {
	for !e.lanes.outcomesKnown() {
		<-e.lanes.wake
	}
	e.recoverInDoubt(ctx, e.lanes.takeInDoubt())
}

// recover applies batches in doubt again, and answers each as it then turns out.
func (e *Engine) recoverInDoubt(ctx context.Context, list []*pendingBatch) {
	if len(list) == 0 {
		return
	}
	e.recovering = true
	e.storeFailed() // a batch that was applied meanwhile may have said that it is over
	for _, w := range list {
		if w.err == nil {
			e.reapply(ctx, w)
		}
		e.answerBatch(w)
	}
	e.recovering = false
	if e.fatal == nil {
		e.storeFailing.Store(false)
		e.sweeper.markUnhealthy() // only now the trouble is over
	}
	e.lanes.signal()
}

// commitAgain applies a batch in doubt until it is known whether it is on disk.
func (e *Engine) reapply(ctx context.Context, w *pendingBatch) {
	pause := minBackoff
	for began := time.Now(); ; pause = min(2*pause, maxBackoff) {
		synced, err := e.apply(ctx, w.batch, applyOptions{})
		if errors.Is(err, store.ErrFull) { // so it never was applied
			w.err = err
			e.trimForFullDisk(ctx, w)
			synced, err = w.synced, w.err
		}
		w.synced, w.err = synced, err
		if w.err == nil {
			e.assumeDurable(w)
			w.err = e.sync(w)
		}
		if !errors.Is(w.err, store.ErrUnknown) {
			if w.err != nil && e.fatal == nil {
				e.fatal = w.err // what is behind it cannot be applied
			}
			return
		}
		if ctx.Err() != nil && time.Since(began) > stopTimeout {
			w.err = e.giveUpInDoubt(w.err)
			return
		}
		time.Sleep(pause)
	}
}

// giveUp says of a batch in doubt that it stays so: the server is stopping. Nothing may
// be applied any more.
func (e *Engine) giveUpInDoubt(err error) error {
	e.fatal = job.Wrapf(job.Unavailable, err, "the store cannot be reached, and the server is stopping: whether the request was stored is not known")
	return e.fatal
}
