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
func (l *lanes) doubt(w *work) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doubted = append(l.doubted, w)
	l.ring()
}

// inDoubt says whether any batch is.
func (l *lanes) inDoubt() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.doubted) > 0
}

// settled says whether it is known of every batch that it is on disk, or in doubt.
func (l *lanes) settled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsynced == len(l.doubted)
}

// takeDoubted removes and returns the batches in doubt, once all are settled.
func (l *lanes) takeDoubted() []*work {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.doubted
	l.doubted = nil
	l.unsynced -= len(list)
	return list
}

// settleBefore returns once it is known what became of every batch that was applied.
func (e *Engine) settleBefore(ctx context.Context) {
	for !e.lanes.settled() {
		<-e.lanes.wake
	}
	e.recover(ctx, e.lanes.takeDoubted())
}

// recover applies batches in doubt again, and answers each as it then turns out.
func (e *Engine) recover(ctx context.Context, list []*work) {
	if len(list) == 0 {
		return
	}
	e.recovering = true
	e.inTrouble() // a batch that was applied meanwhile may have said that it is over
	for _, w := range list {
		if w.err == nil {
			e.commitAgain(ctx, w)
		}
		e.conclude(w)
	}
	e.recovering = false
	if e.damage == nil {
		e.failing.Store(false)
		e.sweeper.unhealthy() // only now the trouble is over
	}
	e.lanes.ring()
}

// commitAgain applies a batch in doubt until it is known whether it is on disk.
func (e *Engine) commitAgain(ctx context.Context, w *work) {
	pause := firstPause
	for began := time.Now(); ; pause = min(2*pause, mostPause) {
		synced, err := e.persist(ctx, w.batch, try{})
		if errors.Is(err, store.ErrFull) { // so it never was applied
			w.err = err
			e.squeeze(ctx, w)
			synced, err = w.synced, w.err
		}
		w.synced, w.err = synced, err
		if w.err == nil {
			e.assume(w)
			w.err = e.sync(w)
		}
		if !errors.Is(w.err, store.ErrUnknown) {
			if w.err != nil && e.damage == nil {
				e.damage = w.err // what is behind it cannot be applied
			}
			return
		}
		if ctx.Err() != nil && time.Since(began) > giveUpStopping {
			w.err = e.giveUp(w.err)
			return
		}
		time.Sleep(pause)
	}
}

// giveUp says of a batch in doubt that it stays so: the server is stopping. Nothing may
// be applied any more.
func (e *Engine) giveUp(err error) error {
	e.damage = job.Because(job.Unavailable, err, "the store cannot be reached, and the server is stopping: whether the request was stored is not known")
	return e.damage
}
