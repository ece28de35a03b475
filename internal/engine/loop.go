package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/watch"
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

// work is one batch and who waits for it.
type pendingBatch struct {
	batch  *store.Batch
	ops    []*pendingOp // in the order in which the store applies them
	claims []claim

	// Set by commit.
	began  time.Time
	synced func() error // nil unless the batch was applied
	err    error        // why it was not

	partialErr error // why its last ops came to nothing; they say so themselves

	assumed bool // that its answers are final: of counts, and of slots
}

// claim is an op that the loop itself made, for a worker with free slots.
type claim struct {
	op       *store.Claim
	consumer *consumer
	recorded bool // the slots for which it got nothing are free again
	got      int  // how many jobs, as far as that is known
}

// note frees the slots for which the claim got no job. Where the batch is applied again
// because nobody knew whether it was stored, it may have got more or fewer than before.
func (c *claim) recordGot(got int) {
	if c.recorded {
		c.consumer.release(c.got - got)
	} else {
		c.consumer.releaseUnclaimed(c.op, got)
	}
	c.recorded, c.got = true, got
}

// gather makes the next batch: what waits in the lanes, the slots that its
// finishes free, submits given to whoever is free, and claims for the rest.
func (e *Engine) gather() *pendingBatch {
	w := &pendingBatch{batch: store.NewBatch(), ops: inStoreOrder(e.refuseEarlySweeps(e.lanes.take()))}
	w.batch.Limits = e.limits
	for _, p := range w.ops {
		if f, ok := p.op.(*store.Finish); ok && !p.swept {
			e.freeSlot(f.Lease)
		}
	}
	for _, p := range w.ops {
		if p.submits == nil {
			w.batch.Add(p.op)
			continue
		}
		for i, s := range p.submits {
			p.consumers[i] = e.assign(s)
		}
		w.batch.Submits = append(w.batch.Submits, p.submits...)
	}
	for _, name := range e.names {
		if e.claimsStopped {
			break
		}
		w.claims = append(w.claims, e.queues[name].makeClaims(w.batch)...)
	}
	for _, c := range w.claims {
		w.batch.Claims = append(w.batch.Claims, c.op)
	}
	return w
}

// spareHealthy refuses to take leases that a sweep found before a trouble of this process
// was over: their workers could not renew them, nor say anything.
func (e *Engine) refuseEarlySweeps(ops []*pendingOp) []*pendingOp {
	return slices.DeleteFunc(ops, func(p *pendingOp) bool {
		f, ok := p.op.(*store.Finish)
		if !ok || !needsHealth(f.If) || e.sweeper.mayTakeLeases() {
			return false
		}
		f.Err = job.Errorf(job.LeaseLost, "the server itself stood still: the worker has its time to renew")
		p.answer()
		return true
	})
}

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

// try is how a batch is applied.
type applyOptions struct {
	certain bool      // that nothing of it was ever applied
	until   time.Time // how long a part of it waits for room; zero for a whole one, which does not
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

// mostWait is how long new work waits for a store that cannot be written.
const maxUnwritable = time.Second

func unwritable(cause error) error {
	return &job.Error{Code: job.Unavailable, Message: "the server cannot write to its disk at the moment", RetryAfter: retrySoon, Err: cause}
}

// giveUpStopping is how long a stopping server tries to write what it was asked.
const stopTimeout = 5 * time.Second

// isolate commits the halves of a batch in which some op's data is bad, until the
// culprit stands alone and is refused. Each half is on disk before the next is applied:
// a store remembers only so many that are not. Halves wait for room on a full disk until a moment;
// others wait for them meanwhile.
func (e *Engine) isolate(ctx context.Context, b *store.Batch, cause error, until time.Time) (func() error, error) {
	if b.Len() == 1 || isOneGroup(b) {
		refuseOps(b, job.Wrapf(job.Invalid, cause, "the store cannot take this data"))
		return nothingToSync, nil
	}
	if until.IsZero() {
		until = time.Now().Add(fullDiskWait)
	}
	first, second := halves(b)
	applied, err := e.applyDurably(ctx, first, until)
	if !applied {
		return nil, err
	}
	if err == nil {
		applied, err = e.applyDurably(ctx, second, until)
		if err == nil {
			joinAnswers(b, first, second)
			return nothingToSync, nil
		}
	} else if part, ok := errors.AsType[*partialError](err); ok {
		applied, err = false, part.err
	} else {
		return func() error { return err }, nil // nothing of it can be trusted
	}
	// The first half is on disk: its answers stand, whatever becomes of the second.
	if errors.Is(err, store.ErrFull) {
		refuseOps(second, noSpace(err))
		joinAnswers(b, first, &store.Batch{})
		return nothingToSync, nil
	}
	if part, ok := errors.AsType[*partialError](err); ok { // it has said so to its own last ops
		joinAnswers(b, first, second)
		return func() error { return part }, nil
	}
	if applied {
		err = e.diskFailed(err)
	}
	refuseOps(second, err)
	joinAnswers(b, first, &store.Batch{})
	part := &partialError{err}
	return func() error { return part }, nil
}

// durably applies a part of a batch and waits until it is on disk. When it was not
// applied, nothing of it was.
func (e *Engine) applyDurably(ctx context.Context, b *store.Batch, until time.Time) (applied bool, err error) {
	t, pause := applyOptions{certain: true, until: until}, minBackoff
	for began := time.Now(); ; {
		synced, err := e.apply(ctx, b, t)
		if errors.Is(err, store.ErrFull) && ctx.Err() == nil && time.Now().Before(until) {
			time.Sleep(fullDiskPause)
			continue
		}
		if err != nil {
			return false, err
		}
		if err = synced(); !errors.Is(err, store.ErrUnknown) {
			return true, err
		}
		e.storeFailed()
		if ctx.Err() != nil && time.Since(began) > stopTimeout {
			return false, e.giveUpInDoubt(err)
		}
		time.Sleep(pause)
		e.awaitOutcomes(ctx)
		t.certain, pause = false, min(2*pause, maxBackoff)
	}
}

// partError is why the last ops of a batch came to nothing, which they say themselves.
// Those before them are on disk.
type partialError struct{ err error }

func (p *partialError) Error() string { return p.err.Error() }
func (p *partialError) Unwrap() error { return p.err }

// refuse answers everyone in a batch that was not applied, or of which nobody
// knows whether it is on disk.
func (e *Engine) failBatch(w *pendingBatch) {
	if !w.assumed {
		for i := range w.claims {
			w.claims[i].recordGot(0)
		}
		e.reoccupySlots(w.ops, false)
	}
	for _, p := range w.ops {
		for _, to := range p.consumers {
			if to != nil {
				to.release(1)
			}
		}
		p.err = w.err
		p.answer()
	}
}

// settle hands on what a batch made that is on disk: jobs to workers, changes to
// watchers, answers to callers, in the order in which the store applied the ops.
func (e *Engine) settle(w *pendingBatch) {
	at := time.Now()
	e.fileRemover.add(w.batch.Removed) // before anyone is told: who then waits for them waits for these, too
	for _, p := range w.ops {
		e.settled(p)
		p.answer()
	}
	for _, m := range w.batch.Moved {
		e.hub.Publish(m.ID, watch.Event{State: m.State, Revision: m.Revision})
	}
	for _, c := range w.claims { // last, as they were applied: a job may have been finished and claimed
		e.deliverClaimed(c)
	}
	for i := range w.batch.Made {
		e.scheduleSweep(&w.batch.Made[i])
	}
	e.reportDamaged(w.batch.Damaged)
	e.peers.publish(w)
	e.observeBatch(w, at)
}

// tellDamaged tells the log, and watchers, of jobs whose records are damaged.
func (e *Engine) reportDamaged(ids []job.ID) {
	for _, id := range ids {
		e.log.Error("the record of a job is damaged on the disk: the job has failed, and others go on; `meanwhile check` looks at all of the data", "job", id)
		e.notifyReread(id)
	}
}

// settled does what follows from one committed op.
func (e *Engine) settled(p *pendingOp) {
	for i, op := range p.submits {
		e.submitted(op, p.consumers[i])
	}
	switch op := p.op.(type) {
	case *store.Renew:
		e.dropIfLost(op.Lease, op.Err)
		e.orderCancel(op.Lease, op.CancelRequested)
	case *store.Append:
		e.appended(op)
		e.dropIfLost(op.Lease, op.Err)
		e.orderCancel(op.Lease, op.CancelRequested)
	case *store.Finish:
		e.finished(op, p.swept)
	case *store.Cancel:
		e.cancelled(op)
	case *store.Delete:
		e.deleted(op)
	case *store.Retry:
		e.retried(op)
	case *store.Due:
		if op.Err != nil {
			return
		}
		for i := range op.Expired {
			e.publish(&op.Expired[i])
		}
	}
}
