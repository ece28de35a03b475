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
	retrySoon = time.Second
	// A commit that fails is tried again after so long, doubled up to the most.
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
	// unsettled is how many batches may be applied and not yet be on disk.
	maxUnsynced = 4
)

// do sends an op through the loop and waits until it is on disk. The op's own
// refusal is in the op; the error is why nobody knows of it, or that it was never
// taken. When ctx ends first, the op goes on without its caller.
func (e *Engine) do(ctx context.Context, p *pendingOp) error {
	if err := e.lanes.put(p); err != nil {
		return err
	}
	return p.wait(ctx)
}

// wait returns when the op's batch is settled, or ctx ends.
func (p *pendingOp) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		select {
		case <-p.done: // of the two the answer counts
			return p.err
		default:
			return ctx.Err()
		}
	}
}

// loop applies what waits, batch after batch, until ctx has ended and what
// was asked before is answered. While one batch is synced the next is applied: the settler waits
// for the disk and answers, in the same order. A disk that cannot be synced ends
// the loop with its error.
func (e *Engine) loop(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	defer context.AfterFunc(ctx, e.lanes.signal)()
	e.stopLoop = fail
	applied := make(chan *pendingBatch, maxUnsynced) // closed here
	var settling sync.WaitGroup
	settling.Go(func() { e.settler(applied) })
	for ctx.Err() == nil {
		switch {
		case e.lanes.hasInDoubt():
			e.awaitOutcomes(ctx)
			continue
		case e.lanes.waitForMore():
			<-e.lanes.wake
			continue
		}
		w := e.gather()
		if w.batch.Len() == 0 {
			<-e.lanes.wake
			continue
		}
		e.commit(ctx, w)
		if e.fatal != nil { // also of a part of the batch
			fail(e.fatal)
		}
		if e.lanes.idle() { // nothing else to do meanwhile
			e.syncAlone(ctx, w)
			continue
		}
		e.lanes.addUnsynced()
		applied <- w
	}
	close(applied)
	settling.Wait()
	e.recoverInDoubt(ctx, e.lanes.takeInDoubt())
	e.lanes.close()
	// What came in between. Nothing is claimed any more: from a store that refuses all,
	// jobs would be claimed again and again.
	e.claimsStopped = true
	for w := e.gather(); w.batch.Len() > 0; w = e.gather() {
		e.commit(ctx, w)
		e.syncAlone(ctx, w)
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// settler finishes off applied batches while the loop applies the next ones. Those of
// which nobody knows whether they are stored, and all behind them, are for the loop.
func (e *Engine) settler(applied <-chan *pendingBatch) {
	for w := range applied {
		if e.lanes.hasInDoubt() || !e.syncAndAnswer(w) {
			e.lanes.addInDoubt(w)
			continue
		}
		e.lanes.removeUnsynced()
	}
}

// finishAlone finishes off a batch that has no other before or behind it.
func (e *Engine) syncAlone(ctx context.Context, w *pendingBatch) {
	if !e.syncAndAnswer(w) {
		e.recoverInDoubt(ctx, []*pendingBatch{w})
	}
}

// finishOff waits for an applied batch to be on disk and answers whoever waits for
// it, unless nobody knows whether it is.
func (e *Engine) syncAndAnswer(w *pendingBatch) (known bool) {
	if w.err == nil {
		w.err = e.sync(w)
		if errors.Is(w.err, store.ErrUnknown) {
			w.err = nil
			return false
		}
	}
	e.answerBatch(w)
	return true
}

// conclude answers whoever waits for a batch, once it is known what became of it. When
// the sync has failed, nothing that was applied since the last one can be
// trusted: it and all that comes is answered so, and the loop ends.
func (e *Engine) answerBatch(w *pendingBatch) {
	e.commits.end()
	if w.err == nil {
		e.settle(w)
		if w.partialErr != nil {
			e.stopLoop(w.partialErr)
		}
		return
	}
	if w.synced != nil || errors.Is(w.err, store.ErrDamaged) {
		e.stopLoop(w.err)
	}
	e.failBatch(w)
}

// sync waits for a batch to be on disk.
func (e *Engine) sync(w *pendingBatch) error {
	err := w.synced()
	if took := time.Since(w.began); took > maxCommitTime {
		e.sweeper.markUnhealthy()
		e.log.Warn("a commit was slow", "took", took, "ops", w.batch.Len())
	}
	if part, ok := errors.AsType[*partialError](err); ok {
		w.partialErr = part.err
		return nil
	}
	if errors.Is(err, store.ErrUnknown) {
		e.storeFailed()
		e.log.Error("whether a commit is stored is not known: it is made again, and those behind it", "error", err, "ops", w.batch.Len())
		return err
	}
	if err != nil {
		return e.diskFailed(err)
	}
	return nil
}

// distrust says that a sync has failed.
func (e *Engine) diskFailed(err error) error {
	e.storeFailing.Store(true)
	e.log.Error("the disk cannot be trusted any more: the server stops", "error", err)
	return job.Wrapf(job.Unavailable, err, "the server's disk has failed: whether the request was stored is not known")
}
