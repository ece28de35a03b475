package engine

import (
	"context"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// try is how a batch is applied.
type applyOptions struct {
	certain bool      // that nothing of it was ever applied
	until   time.Time // how long a part of it waits for room; zero for a whole one, which does not
}

// mostWait is how long new work waits for a store that cannot be written.
const maxUnwritable = time.Second

// giveUpStopping is how long a stopping server tries to write what it was asked.
const stopTimeout = 5 * time.Second

// commit applies a batch for the first time.
func (e *Engine) commit(ctx context.Context, w *pendingBatch) {
	w.began = time.Now()
	e.commits.begin(w.began)
	w.err = errNoSpace
	if e.disk.beginCommit(w.addedBytes()) {
		w.synced, w.err = e.apply(ctx, w.batch, applyOptions{certain: true})
		e.disk.endCommit()
	}
	if errors.Is(w.err, store.ErrFull) {
		e.trimForFullDisk(ctx, w)
	}
	if time.Since(w.began) > maxCommitTime {
		e.sweeper.markUnhealthy() // before the next batch is gathered, which may take leases
	}
	if w.err == nil {
		e.assumeDurable(w)
	}
	e.releaseBatchSubmits(w)
}

// assume takes the answers of an applied batch for what the loop itself knows of queues
// and slots: the next batch is made before this one is on disk. Nobody is told of them.
// Where they turn out to be others, because the batch is applied again, what was assumed
// is put right.
func (e *Engine) assumeDurable(w *pendingBatch) {
	w.assumed = true
	for name, c := range w.batch.Counts {
		if q := e.queues[name]; q != nil {
			q.setCounts(c)
		}
	}
	for i := range w.claims {
		w.claims[i].recordGot(len(w.claims[i].op.Claimed))
	}
	e.reoccupySlots(w.ops, true)
	if e.needsClaim() {
		e.lanes.signal()
	}
}

// persist applies a batch. What failed is tried again, before anything else, but once it is known
// what became of the batches before it:
// where the outcome was unknown the store finds out what became of it. On a disk
// that is full or cannot be written new work is refused, so that it does not wait
// with the rest; a full one is for the caller to wait for, and damage ends it all.
func (e *Engine) apply(ctx context.Context, b *store.Batch, t applyOptions) (synced func() error, err error) {
	pause := minBackoff
	for began := time.Now(); ; pause = min(2*pause, maxBackoff) {
		if e.fatal != nil {
			return nil, e.fatal
		}
		synced, err := e.store.Apply(context.WithoutCancel(ctx), b)
		switch {
		case err == nil:
			e.storeAnswered()
			return synced, nil
		case errors.Is(err, store.ErrData):
			e.storeAnswered() // it judged the data
			return e.isolate(ctx, b, err, t.until)
		case errors.Is(err, store.ErrDamaged):
			e.storeFailing.Store(true)
			e.log.Error("the data is damaged, and the server stops: put a backup in the place of its data directory", "error", err)
			e.fatal = job.Wrapf(job.Unavailable, err, "the server's data is damaged, and it stops")
			return nil, e.fatal
		case errors.Is(err, store.ErrFull):
			e.disk.setFull(err)
			if refuseGrowth(b, noSpace(err)) {
				continue
			}
			return nil, err
		}
		t.certain = t.certain && errors.Is(err, store.ErrNotCommitted)
		e.storeFailed()
		e.log.Error("the store refused a commit, which is tried again", "error", err, "ops", b.Len(), "unknown", !errors.Is(err, store.ErrNotCommitted))
		if ctx.Err() != nil && time.Since(began) > stopTimeout {
			return nil, job.Wrapf(job.Unavailable, err, "the store cannot be written, and the server is stopping")
		}
		if t.certain && time.Since(began) > maxUnwritable {
			refuseGrowth(b, unwritable(err))
		}
		time.Sleep(pause)
		e.awaitOutcomes(ctx)
	}
}

// inTrouble notes that the store cannot be written: new work is refused, and no lease is
// taken.
func (e *Engine) storeFailed() {
	e.storeFailing.Store(true)
	e.sweeper.markUnhealthy()
}

// works notes that the store has answered. A trouble is over, unless batches are in doubt.
func (e *Engine) storeAnswered() {
	if !e.recovering && e.storeFailing.Swap(false) {
		e.sweeper.markUnhealthy() // only now the trouble is over
	}
}

func unwritable(cause error) error {
	return &job.Error{Code: job.Unavailable, Message: "the server cannot write to its disk at the moment", RetryAfter: retrySoon, Err: cause}
}
