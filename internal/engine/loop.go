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
	firstPause = 5 * time.Millisecond
	mostPause  = time.Second
	// unsettled is how many batches may be applied and not yet be on disk.
	unsettled = 4
)

// do sends an op through the loop and waits until it is on disk. The op's own
// refusal is in the op; the error is why nobody knows of it, or that it was never
// taken. When ctx ends first, the op goes on without its caller.
func (e *Engine) do(ctx context.Context, p *pending) error {
	if err := e.lanes.put(p); err != nil {
		return err
	}
	return p.wait(ctx)
}

// wait returns when the op's batch is settled, or ctx ends.
func (p *pending) wait(ctx context.Context) error {
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
	defer context.AfterFunc(ctx, e.lanes.ring)()
	e.fail = fail
	applied := make(chan *work, unsettled) // closed here
	var settling sync.WaitGroup
	settling.Go(func() { e.settler(applied) })
	for ctx.Err() == nil {
		switch {
		case e.lanes.inDoubt():
			e.settleBefore(ctx)
			continue
		case e.lanes.syncing():
			<-e.lanes.wake
			continue
		}
		w := e.gather()
		if w.batch.Len() == 0 {
			<-e.lanes.wake
			continue
		}
		e.commit(ctx, w)
		if e.damage != nil { // also of a part of the batch
			fail(e.damage)
		}
		if e.lanes.idle() { // nothing else to do meanwhile
			e.finishAlone(ctx, w)
			continue
		}
		e.lanes.applied()
		applied <- w
	}
	close(applied)
	settling.Wait()
	e.recover(ctx, e.lanes.takeDoubted())
	e.lanes.close()
	// What came in between. Nothing is claimed any more: from a store that refuses all,
	// jobs would be claimed again and again.
	e.closing = true
	for w := e.gather(); w.batch.Len() > 0; w = e.gather() {
		e.commit(ctx, w)
		e.finishAlone(ctx, w)
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// settler finishes off applied batches while the loop applies the next ones. Those of
// which nobody knows whether they are stored, and all behind them, are for the loop.
func (e *Engine) settler(applied <-chan *work) {
	for w := range applied {
		if e.lanes.inDoubt() || !e.finishOff(w) {
			e.lanes.doubt(w)
			continue
		}
		e.lanes.synced()
	}
}

// finishAlone finishes off a batch that has no other before or behind it.
func (e *Engine) finishAlone(ctx context.Context, w *work) {
	if !e.finishOff(w) {
		e.recover(ctx, []*work{w})
	}
}

// finishOff waits for an applied batch to be on disk and answers whoever waits for
// it, unless nobody knows whether it is.
func (e *Engine) finishOff(w *work) (known bool) {
	if w.err == nil {
		w.err = e.sync(w)
		if errors.Is(w.err, store.ErrUnknown) {
			w.err = nil
			return false
		}
	}
	e.conclude(w)
	return true
}

// conclude answers whoever waits for a batch, once it is known what became of it. When
// the sync has failed, nothing that was applied since the last one can be
// trusted: it and all that comes is answered so, and the loop ends.
func (e *Engine) conclude(w *work) {
	e.commits.end()
	if w.err == nil {
		e.settle(w)
		if w.partly != nil {
			e.fail(w.partly)
		}
		return
	}
	if w.synced != nil || errors.Is(w.err, store.ErrDamaged) {
		e.fail(w.err)
	}
	e.refuse(w)
}

// sync waits for a batch to be on disk.
func (e *Engine) sync(w *work) error {
	err := w.synced()
	if took := time.Since(w.began); took > slowCommit {
		e.sweeper.unhealthy()
		e.log.Warn("a commit was slow", "took", took, "ops", w.batch.Len())
	}
	if part, ok := errors.AsType[*partError](err); ok {
		w.partly = part.err
		return nil
	}
	if errors.Is(err, store.ErrUnknown) {
		e.inTrouble()
		e.log.Error("whether a commit is stored is not known: it is made again, and those behind it", "error", err, "ops", w.batch.Len())
		return err
	}
	if err != nil {
		return e.distrust(err)
	}
	return nil
}

// distrust says that a sync has failed.
func (e *Engine) distrust(err error) error {
	e.failing.Store(true)
	e.log.Error("the disk cannot be trusted any more: the server stops", "error", err)
	return job.Because(job.Unavailable, err, "the server's disk has failed: whether the request was stored is not known")
}

// work is one batch and who waits for it.
type work struct {
	batch  *store.Batch
	ops    []*pending // in the order in which the store applies them
	claims []claim

	// Set by commit.
	began  time.Time
	synced func() error // nil unless the batch was applied
	err    error        // why it was not

	partly error // why its last ops came to nothing; they say so themselves

	assumed bool // that its answers are final: of counts, and of slots
}

// claim is an op that the loop itself made, for a worker with free slots.
type claim struct {
	op    *store.Claim
	to    *server
	noted bool // the slots for which it got nothing are free again
	got   int  // how many jobs, as far as that is known
}

// note frees the slots for which the claim got no job. Where the batch is applied again
// because nobody knew whether it was stored, it may have got more or fewer than before.
func (c *claim) note(got int) {
	if c.noted {
		c.to.release(c.got - got)
	} else {
		c.to.claimed(c.op, got)
	}
	c.noted, c.got = true, got
}

// gather makes the next batch: what waits in the lanes, the slots that its
// finishes free, submits given to whoever is free, and claims for the rest.
func (e *Engine) gather() *work {
	w := &work{batch: store.NewBatch(), ops: inStoreOrder(e.spareHealthy(e.lanes.take()))}
	w.batch.Limits = e.limits
	for _, p := range w.ops {
		if f, ok := p.op.(*store.Finish); ok && !p.taken {
			e.freeSlot(f.Lease)
		}
	}
	for _, p := range w.ops {
		if p.submits == nil {
			w.batch.Add(p.op)
			continue
		}
		for i, s := range p.submits {
			p.to[i] = e.assign(s)
		}
		w.batch.Submits = append(w.batch.Submits, p.submits...)
	}
	for _, name := range e.names {
		if e.closing {
			break
		}
		w.claims = append(w.claims, e.queues[name].claims(w.batch)...)
	}
	for _, c := range w.claims {
		w.batch.Claims = append(w.batch.Claims, c.op)
	}
	return w
}

// spareHealthy refuses to take leases that a sweep found before a trouble of this process
// was over: their workers could not renew them, nor say anything.
func (e *Engine) spareHealthy(ops []*pending) []*pending {
	return slices.DeleteFunc(ops, func(p *pending) bool {
		f, ok := p.op.(*store.Finish)
		if !ok || !needsHealth(f.If) || e.sweeper.mayTake() {
			return false
		}
		f.Err = job.Errorf(job.LeaseLost, "the server itself stood still: the worker has its time to renew")
		p.answer()
		return true
	})
}

// commit applies a batch for the first time.
func (e *Engine) commit(ctx context.Context, w *work) {
	w.began = time.Now()
	e.commits.begin(w.began)
	w.err = errNoRoom
	if e.disk.begin(w.adds()) {
		w.synced, w.err = e.persist(ctx, w.batch, try{certain: true})
		e.disk.end()
	}
	if errors.Is(w.err, store.ErrFull) {
		e.squeeze(ctx, w)
	}
	if time.Since(w.began) > slowCommit {
		e.sweeper.unhealthy() // before the next batch is gathered, which may take leases
	}
	if w.err == nil {
		e.assume(w)
	}
	e.answered(w)
}

// assume takes the answers of an applied batch for what the loop itself knows of queues
// and slots: the next batch is made before this one is on disk. Nobody is told of them.
// Where they turn out to be others, because the batch is applied again, what was assumed
// is put right.
func (e *Engine) assume(w *work) {
	w.assumed = true
	for name, c := range w.batch.Counts {
		if q := e.queues[name]; q != nil {
			q.setCounts(c)
		}
	}
	for i := range w.claims {
		w.claims[i].note(len(w.claims[i].op.Claimed))
	}
	e.retakeSlots(w.ops, true)
	if e.moreReady() {
		e.lanes.ring()
	}
}

// try is how a batch is applied.
type try struct {
	certain bool      // that nothing of it was ever applied
	until   time.Time // how long a part of it waits for room; zero for a whole one, which does not
}

// persist applies a batch. What failed is tried again, before anything else, but once it is known
// what became of the batches before it:
// where the outcome was unknown the store finds out what became of it. On a disk
// that is full or cannot be written new work is refused, so that it does not wait
// with the rest; a full one is for the caller to wait for, and damage ends it all.
func (e *Engine) persist(ctx context.Context, b *store.Batch, t try) (synced func() error, err error) {
	pause := firstPause
	for began := time.Now(); ; pause = min(2*pause, mostPause) {
		if e.damage != nil {
			return nil, e.damage
		}
		synced, err := e.store.Apply(context.WithoutCancel(ctx), b)
		switch {
		case err == nil:
			e.works()
			return synced, nil
		case errors.Is(err, store.ErrData):
			e.works() // it judged the data
			return e.isolate(ctx, b, err, t.until)
		case errors.Is(err, store.ErrDamaged):
			e.failing.Store(true)
			e.log.Error("the data is damaged, and the server stops: put a backup in the place of its data directory", "error", err)
			e.damage = job.Because(job.Unavailable, err, "the server's data is damaged, and it stops")
			return nil, e.damage
		case errors.Is(err, store.ErrFull):
			e.disk.met(err)
			if refuseGrowth(b, noSpace(err)) {
				continue
			}
			return nil, err
		}
		t.certain = t.certain && errors.Is(err, store.ErrNotCommitted)
		e.inTrouble()
		e.log.Error("the store refused a commit, which is tried again", "error", err, "ops", b.Len(), "unknown", !errors.Is(err, store.ErrNotCommitted))
		if ctx.Err() != nil && time.Since(began) > giveUpStopping {
			return nil, job.Because(job.Unavailable, err, "the store cannot be written, and the server is stopping")
		}
		if t.certain && time.Since(began) > mostWait {
			refuseGrowth(b, unwritable(err))
		}
		time.Sleep(pause)
		e.settleBefore(ctx)
	}
}

// inTrouble notes that the store cannot be written: new work is refused, and no lease is
// taken.
func (e *Engine) inTrouble() {
	e.failing.Store(true)
	e.sweeper.unhealthy()
}

// works notes that the store has answered. A trouble is over, unless batches are in doubt.
func (e *Engine) works() {
	if !e.recovering && e.failing.Swap(false) {
		e.sweeper.unhealthy() // only now the trouble is over
	}
}

// mostWait is how long new work waits for a store that cannot be written.
const mostWait = time.Second

func unwritable(cause error) error {
	return &job.Error{Code: job.Unavailable, Message: "the server cannot write to its disk at the moment", RetryAfter: retrySoon, Err: cause}
}

// giveUpStopping is how long a stopping server tries to write what it was asked.
const giveUpStopping = 5 * time.Second

// isolate commits the halves of a batch in which some op's data is bad, until the
// culprit stands alone and is refused. Each half is on disk before the next is applied:
// a store remembers only so many that are not. Halves wait for room on a full disk until a moment;
// others wait for them meanwhile.
func (e *Engine) isolate(ctx context.Context, b *store.Batch, cause error, until time.Time) (func() error, error) {
	if b.Len() == 1 || oneGroup(b) {
		refuseOps(b, job.Because(job.Invalid, cause, "the store cannot take this data"))
		return onDisk, nil
	}
	if until.IsZero() {
		until = time.Now().Add(fullWait)
	}
	first, second := halves(b)
	applied, err := e.durably(ctx, first, until)
	if !applied {
		return nil, err
	}
	if err == nil {
		applied, err = e.durably(ctx, second, until)
		if err == nil {
			join(b, first, second)
			return onDisk, nil
		}
	} else if part, ok := errors.AsType[*partError](err); ok {
		applied, err = false, part.err
	} else {
		return func() error { return err }, nil // nothing of it can be trusted
	}
	// The first half is on disk: its answers stand, whatever becomes of the second.
	if errors.Is(err, store.ErrFull) {
		refuseOps(second, noSpace(err))
		join(b, first, &store.Batch{})
		return onDisk, nil
	}
	if part, ok := errors.AsType[*partError](err); ok { // it has said so to its own last ops
		join(b, first, second)
		return func() error { return part }, nil
	}
	if applied {
		err = e.distrust(err)
	}
	refuseOps(second, err)
	join(b, first, &store.Batch{})
	part := &partError{err}
	return func() error { return part }, nil
}

// durably applies a part of a batch and waits until it is on disk. When it was not
// applied, nothing of it was.
func (e *Engine) durably(ctx context.Context, b *store.Batch, until time.Time) (applied bool, err error) {
	t, pause := try{certain: true, until: until}, firstPause
	for began := time.Now(); ; {
		synced, err := e.persist(ctx, b, t)
		if errors.Is(err, store.ErrFull) && ctx.Err() == nil && time.Now().Before(until) {
			time.Sleep(fullPause)
			continue
		}
		if err != nil {
			return false, err
		}
		if err = synced(); !errors.Is(err, store.ErrUnknown) {
			return true, err
		}
		e.inTrouble()
		if ctx.Err() != nil && time.Since(began) > giveUpStopping {
			return false, e.giveUp(err)
		}
		time.Sleep(pause)
		e.settleBefore(ctx)
		t.certain, pause = false, min(2*pause, mostPause)
	}
}

// partError is why the last ops of a batch came to nothing, which they say themselves.
// Those before them are on disk.
type partError struct{ err error }

func (p *partError) Error() string { return p.err.Error() }
func (p *partError) Unwrap() error { return p.err }

// refuse answers everyone in a batch that was not applied, or of which nobody
// knows whether it is on disk.
func (e *Engine) refuse(w *work) {
	if !w.assumed {
		for i := range w.claims {
			w.claims[i].note(0)
		}
		e.retakeSlots(w.ops, false)
	}
	for _, p := range w.ops {
		for _, to := range p.to {
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
func (e *Engine) settle(w *work) {
	at := time.Now()
	e.removals.add(w.batch.Removed) // before anyone is told: who then waits for them waits for these, too
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
		e.awaits(&w.batch.Made[i])
	}
	e.tellDamaged(w.batch.Damaged)
	e.peers.tell(w)
	e.observe(w, at)
}

// tellDamaged tells the log, and watchers, of jobs whose records are damaged.
func (e *Engine) tellDamaged(ids []job.ID) {
	for _, id := range ids {
		e.log.Error("the record of a job is damaged on the disk: the job has failed, and others go on; `meanwhile check` looks at all of the data", "job", id)
		e.lookAgain(id)
	}
}

// settled does what follows from one committed op.
func (e *Engine) settled(p *pending) {
	for i, op := range p.submits {
		e.submitted(op, p.to[i])
	}
	switch op := p.op.(type) {
	case *store.Renew:
		e.refusedLease(op.Lease, op.Err)
		e.orderCancel(op.Lease, op.CancelRequested)
	case *store.Append:
		e.appended(op)
		e.refusedLease(op.Lease, op.Err)
		e.orderCancel(op.Lease, op.CancelRequested)
	case *store.Finish:
		e.finished(op, p.taken)
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
