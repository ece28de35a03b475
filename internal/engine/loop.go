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
	// retrySoon is the Retry-After of refusals whose cause is short.
	retrySoon = time.Second
	// A failed commit is tried again after minBackoff, doubled up to maxBackoff.
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
	// maxUnsynced bounds the batches that are applied and not yet on disk.
	maxUnsynced = 4
)

// do sends an op through the loop and waits until it is on disk. The store sets its refusal in
// the op. An error means that the op was not accepted or that its outcome is unknown. If ctx
// ends first, the op is still applied.
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
		case <-p.done: // both are ready: prefer the answer
			return p.err
		default:
			return ctx.Err()
		}
	}
}

// loop applies the waiting ops, batch after batch, until ctx has ended and all earlier ops are
// answered. While one batch syncs, it applies the next; the settler waits for the disk and
// answers in the same order. If a sync fails, the loop ends with its error.
func (e *Engine) loop(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	defer context.AfterFunc(ctx, e.lanes.signal)()
	e.stopLoop = fail
	applied := make(chan *pendingBatch, maxUnsynced) // closed by this function
	var settling sync.WaitGroup
	settling.Go(func() { e.settler(applied) })
	for ctx.Err() == nil {
		switch {
		case e.lanes.hasInDoubt():
			// Nothing may be applied before the batches in doubt, or the order would change.
			e.awaitOutcomes(ctx)
			continue
		case e.lanes.waitForMore():
			// The disk is busy, and a small batch now would cost another sync.
			<-e.lanes.wake
			continue
		}
		pb := e.gatherInTurn(ctx)
		if pb.batch.Len() == 0 {
			<-e.lanes.wake
			continue
		}
		e.commit(ctx, pb)
		if e.fatal != nil { // an error that ends the engine, of the batch or of a part of it
			fail(e.fatal)
		}
		if e.lanes.idle() {
			// Nothing could be applied meanwhile, so using the settler would only cost a switch
			// of goroutines.
			e.syncAlone(ctx, pb)
			continue
		}
		e.lanes.addUnsynced()
		applied <- pb
	}
	close(applied)
	settling.Wait()
	e.recoverInDoubt(ctx, e.lanes.takeInDoubt())
	e.lanes.close()
	// Commit the ops that came before the lanes closed. Make no more claims: if the store
	// refused everything, the loop would claim the same jobs forever.
	e.claimsStopped = true
	for pb := e.gather(); pb.batch.Len() > 0; pb = e.gather() {
		e.commit(ctx, pb)
		e.syncAlone(ctx, pb)
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// settler settles applied batches while the loop applies the next ones. It leaves each batch
// with an unknown outcome, and all later batches, to the loop.
func (e *Engine) settler(applied <-chan *pendingBatch) {
	for pb := range applied {
		if e.lanes.hasInDoubt() || !e.syncAndAnswer(pb) {
			e.lanes.addInDoubt(pb)
			continue
		}
		e.lanes.removeUnsynced()
	}
}

// syncAlone settles a batch while no other batch is in progress.
func (e *Engine) syncAlone(ctx context.Context, pb *pendingBatch) {
	if !e.syncAndAnswer(pb) {
		e.recoverInDoubt(ctx, []*pendingBatch{pb})
	}
}

// syncAndAnswer waits until an applied batch is on disk and answers its ops. If the outcome is
// unknown, it answers no op and returns false.
func (e *Engine) syncAndAnswer(pb *pendingBatch) (known bool) {
	if pb.err == nil {
		pb.err = e.sync(pb)
		if errors.Is(pb.err, store.ErrUnknown) {
			pb.outdated, pb.err = errors.Is(pb.err, store.ErrOutdated), nil
			return false
		}
	}
	e.answerBatch(pb)
	return true
}

// answerBatch answers the ops of a batch with a known outcome. If its sync failed, nothing that
// was applied since the last good sync can be trusted: all of it is refused, and the loop ends.
func (e *Engine) answerBatch(pb *pendingBatch) {
	e.commits.end()
	if pb.err == nil {
		e.settle(pb)
		if pb.partialErr != nil {
			e.stopLoop(pb.partialErr)
		}
		return
	}
	if pb.synced != nil || errors.Is(pb.err, store.ErrDamaged) {
		e.stopLoop(pb.err)
	}
	e.failBatch(pb)
}

// sync waits until a batch is on disk.
func (e *Engine) sync(pb *pendingBatch) error {
	err := pb.synced()
	if took := time.Since(pb.began); took > maxCommitTime {
		e.sweeper.markUnhealthy()
		e.log.Warn("a commit was slow", "took", took.String(), "ops", pb.batch.Len())
	}
	if part, ok := errors.AsType[*partialError](err); ok {
		pb.partialErr = part.err
		return nil
	}
	if errors.Is(err, store.ErrUnknown) {
		if errors.Is(err, store.ErrOutdated) {
			return err
		}
		e.markStoreFailing()
		e.log.Error("it is not known whether a commit is stored: it is made again, and so are those behind it", "error", err, "ops", pb.batch.Len())
		return err
	}
	if err != nil {
		return e.syncFailure(err)
	}
	return nil
}

// syncFailure refuses new work after a failed sync and returns the error for the callers.
func (e *Engine) syncFailure(err error) error {
	e.storeFailing.Store(true)
	e.log.Error("the disk cannot be trusted any more: the server stops", "error", err)
	return job.Wrapf(job.Unavailable, err, "the server's disk has failed: whether the request was stored is not known")
}
