package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// applyOptions set how a batch is applied.
type applyOptions struct {
	certain bool      // nothing of the batch can have been applied before
	refused func()    // called when ops were refused because the store cannot be written; may be nil
	until   time.Time // when a half stops waiting for disk space; zero for a whole batch
}

// maxUnwritable is how long new work waits while the store cannot be written.
const maxUnwritable = time.Second

// stopTimeout is how long a stopping server tries to write the waiting ops.
const stopTimeout = 5 * time.Second

// commit applies a batch for the first time.
func (e *Engine) commit(ctx context.Context, pb *pendingBatch) {
	if pb.began.IsZero() {
		pb.began = time.Now()
		e.commits.begin(pb.began)
	}
	pb.err = errNoSpace
	if e.disk.beginCommit(pb.addedBytes()) {
		pb.synced, pb.err = e.apply(ctx, pb.batch, applyOptions{certain: true, refused: func() { e.answerRefused(pb) }})
		e.disk.endCommit()
	} else if pb.giveUpTurn != nil {
		pb.giveUpTurn()
	}
	if errors.Is(pb.err, store.ErrFull) {
		e.trimForFullDisk(ctx, pb)
	}
	if time.Since(pb.began) > maxCommitTime {
		e.sweeper.markUnhealthy() // now, because the next batch may contain the sweep's finishes
	}
	if pb.err == nil {
		e.assumeDurable(pb)
	}
	e.releaseBatchSubmits(pb)
}

// assumeDurable uses the answers of an applied batch for counts and slots before it is on disk,
// because the loop makes the next batch meanwhile. Only the loop relies on them; no caller,
// worker or watcher sees them. If the batch is applied again and the answers differ, counts and
// slots are corrected.
func (e *Engine) assumeDurable(pb *pendingBatch) {
	pb.assumed = true
	for name, c := range pb.batch.Counts {
		if q := e.queues[name]; q != nil {
			q.setCounts(c)
		}
	}
	for i := range pb.claims {
		pb.claims[i].recordClaimed(len(pb.claims[i].op.Claimed))
	}
	leased := pb.leasedResources()
	e.resources.recount(pb.resources, leased)
	pb.resources = leased
	e.reoccupySlots(pb.ops, true)
	if len(pb.claims) > 0 && e.resources.changes.Load() != pb.roomChanges {
		e.claimAgain() // a limit has risen since the claims were made
	}
	if e.needsClaim() {
		e.lanes.signal()
	}
}

// apply applies a batch, and retries until the store has applied or rejected it. Before a retry
// it settles the earlier batches. If the outcome of a try was unknown, the store remembers
// whether it applied the batch, so a retry applies nothing twice.
//
// On a full disk, and after a second of failures, it refuses the new work of the batch, so that
// it does not wait with the rest. On a full disk it returns [store.ErrFull], and the caller
// waits or trims the batch. Damage is final.
func (e *Engine) apply(ctx context.Context, b *store.Batch, t applyOptions) (synced func() error, err error) {
	pause := minBackoff
	for began := time.Now(); ; pause = min(2*pause, maxBackoff) {
		if e.fatal != nil {
			return nil, e.fatal
		}
		// A stopping server still commits what it has accepted.
		synced, err := e.store.Apply(context.WithoutCancel(ctx), b)
		switch {
		case err == nil:
			e.markStoreWorking()
			return synced, nil
		case errors.Is(err, store.ErrData):
			e.markStoreWorking() // the store works: it has rejected the data
			return e.isolate(ctx, b, err, t.until)
		case errors.Is(err, store.ErrDamaged):
			e.storeFailing.Store(true)
			e.log.Error("the data is damaged, and the server stops: replace its data directory by a backup", "error", err)
			e.fatal = job.Wrapf(job.Unavailable, err, "the server's data is damaged, and it stops")
			return nil, e.fatal
		case errors.Is(err, store.ErrFull):
			e.disk.setFull(err)
			if refuseNewData(b, noSpace(err)) {
				continue
			}
			return nil, err
		}
		t.certain = t.certain && errors.Is(err, store.ErrNotCommitted)
		if errors.Is(err, store.ErrOutdated) {
			time.Sleep(minBackoff)
			e.awaitOutcomes(ctx)
			continue
		}
		e.markStoreFailing()
		e.log.Error("the store refused a commit, which is tried again", "error", err, "ops", b.Len(), "unknown", !errors.Is(err, store.ErrNotCommitted))
		if ctx.Err() != nil && time.Since(began) > stopTimeout {
			return nil, job.Wrapf(job.Unavailable, err, "the store cannot be written, and the server is stopping")
		}
		// Refuse the new work, so that it does not wait with the rest. A refusal promises that
		// nothing was stored, so refuse only if that is certain.
		if t.certain && time.Since(began) > maxUnwritable && refuseNewData(b, unwritable(err)) && t.refused != nil {
			t.refused()
		}
		time.Sleep(pause)
		e.awaitOutcomes(ctx)
	}
}

// markStoreFailing notes that the store cannot be written: new work is refused, and no lease is
// swept.
func (e *Engine) markStoreFailing() {
	e.storeFailing.Store(true)
	e.sweeper.markUnhealthy()
}

// markStoreWorking notes that the store works, unless batches are still in doubt.
func (e *Engine) markStoreWorking() {
	if !e.recovering && e.storeFailing.Swap(false) {
		e.sweeper.markUnhealthy() // the outage ends now: workers get time to renew
	}
}

// answerRefused answers the refused ops of a batch that the store has not taken yet: an outage may
// last, and their callers can repeat them. The rest of the batch, even if it is empty, is tried
// until the outage is over.
func (e *Engine) answerRefused(pb *pendingBatch) {
	pb.ops = slices.DeleteFunc(pb.ops, func(p *pendingOp) bool {
		if p.submits == nil && !wasRefused(p.op) {
			return false
		}
		e.releaseSubmits(p.submits, p.consumers)
		e.settled(p, pb.began)
		p.answer()
		return true
	})
}

func unwritable(cause error) error {
	return &job.Error{Code: job.Unavailable, Message: "the server cannot store anything at the moment", RetryAfter: retrySoon, Err: cause}
}
