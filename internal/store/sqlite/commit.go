package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// tx is one batch being applied. It lives as long as the commit that made it.
type tx struct {
	*Store
	batch         *store.Batch
	batchNumber   int64 // among the batches of this process
	now           time.Time
	wrote         bool                      // it changed something
	wroteRows     bool                      // side rows among it
	namedQueues   []string                  // the queues whose counts it answers
	changedQueues []string                  // and those whose counts it changed
	freedKeys     []freedKey                // what the op that is being applied made room for
	tallies       map[tallyKey]*tallyChange // what it changed of them
	toPublish     []*runningJob             // running jobs of which readers are to be told anew
}

// Apply applies a batch; see [store.Store].
func (s *Store) Apply(ctx context.Context, b *store.Batch) (synced func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx, b); err != nil {
		return nil, fmt.Errorf("%w: %w", s.noteDamage(err), store.ErrNotCommitted)
	}
	if s.recent.has(b.ID) {
		// It had been applied: its answers stand, its sync is to come.
		s.syncer.begin(true)
		s.syncer.end(true)
	} else if err := s.applyWithReserve(ctx, b); err != nil {
		return nil, s.noteDamage(err)
	}
	commit, lone := s.syncer.seen(), b.Len() <= maxLoneOps
	return func() error { return s.syncer.wait(commit, lone) }, nil
}

// loneOps is how few ops in a batch say that the server has little to do.
const maxLoneOps = 4

// usable says why a batch cannot be applied, and makes the memory true again
// after a commit that failed.
func (s *Store) usable(ctx context.Context, b *store.Batch) error {
	switch {
	case s.closed:
		return errors.New("the store is closed")
	case s.broken.Load():
		return store.ErrDamaged
	case ctx.Err() != nil:
		return ctx.Err()
	case b.ID == (store.BatchID{}):
		return errors.New("the batch has no id")
	}
	return s.refresh()
}

// refresh makes the memory true again after a commit that failed. Whoever reads the
// memory calls it first: what the commit did there never happened.
func (s *Store) refresh() error {
	if !s.staleMemory || s.closed {
		return nil
	}
	if err := s.load(); err != nil {
		return fmt.Errorf("load after a failed commit: %w", err)
	}
	s.staleMemory = false
	return nil
}

// applyInRoom applies a batch, with the help of the reserve where the disk is full.
func (s *Store) applyWithReserve(ctx context.Context, b *store.Batch) error {
	if s.exceedsReserve(b) {
		return fmt.Errorf("what is left on the disk is for deletes: %w: %w", store.ErrFull, store.ErrNotCommitted)
	}
	err := s.applyBatch(b)
	for try := 0; s.freeSpaceFor(b, err, try); try++ {
		if err := s.usable(ctx, b); err != nil {
			return fmt.Errorf("%w: %w", err, store.ErrNotCommitted)
		}
		err = s.applyBatch(b)
	}
	if errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrNotCommitted) {
		// Nobody sees it, and the next commit writes over it.
		err = fmt.Errorf("%w: %w", err, store.ErrNotCommitted)
	}
	return err
}

func (s *Store) applyBatch(b *store.Batch) error {
	b.Moved, b.Removed, b.Made, b.Damaged = nil, nil, nil, nil
	s.batchCount++
	t := &tx{Store: s, batch: b, batchNumber: s.batchCount, now: s.Now()}
	if err := t.run(b); err != nil {
		s.staleMemory = true
		return err
	}
	s.recent.add(b.ID)
	s.suspectStuck.Store(s.suspects.stuck())
	t.publish()
	for _, name := range t.changedQueues {
		s.queueViews.update(name, s.queues[name].Queue)
	}
	if t.wrote {
		s.notifyBackground(b)
	}
	return nil
}

// run applies the batch between BEGIN and COMMIT. An error before the COMMIT is
// certain: nothing was applied. One of the COMMIT itself is not.
func (t *tx) run(b *store.Batch) error {
	if err := t.q.begin.run(); err != nil {
		return classify(err)
	}
	if err := t.apply(b); err != nil {
		_ = t.q.rollback.run()
		return classify(err)
	}
	t.syncer.begin(t.wroteRows)
	err := t.q.commit.run()
	t.syncer.end(err == nil)
	if err != nil {
		if !t.conn.AutocommitEnabled() {
			_ = t.q.rollback.run()
		}
		switch code := sqlite.ErrCode(err); {
		case code.ToPrimary() == sqlite.ResultFull:
			return classify(err)
		case code == sqlite.ResultIOErrSHMSize:
			return fmt.Errorf("commit: %w: %w", err, store.ErrFull)
		}
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// classify says what an error before the COMMIT tells the caller.
func classify(err error) error {
	if diskFull(err) {
		return fmt.Errorf("%w: %w: %w", err, store.ErrFull, store.ErrNotCommitted)
	}
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultTooBig, sqlite.ResultMismatch, sqlite.ResultConstraint, sqlite.ResultRange:
		return fmt.Errorf("%w: %w: %w", err, store.ErrData, store.ErrNotCommitted)
	}
	return fmt.Errorf("%w: %w", err, store.ErrNotCommitted)
}

// apply applies the ops, kind by kind, in the order of the batch's fields.
func (t *tx) apply(b *store.Batch) error {
	for _, kind := range [...]func() error{
		t.endDamaged,
		func() error { return applyEach(t, b.Pauses, t.pause) },
		func() error { return applyEach(t, b.Renews, t.renew) },
		func() error { return applyEach(t, b.Presences, t.renewPresence) },
		func() error { return applyEach(t, b.Appends, t.append) },
		func() error { return applyEach(t, b.Finishes, t.finish) },
		func() error { return applyEach(t, b.Cancels, t.cancel) },
		func() error { return applyEach(t, b.Deletes, t.delete) },
		func() error { return applyEach(t, b.Retries, t.retry) },
		func() error { return applyEach(t, b.Writes, t.write) },
		func() error { return t.submits(b.Submits) },
		func() error { return applyEach(t, b.Dues, t.due) },
		func() error { return applyEach(t, b.Prunes, t.prune) },
		t.queueSuspect,
		func() error { return applyEach(t, b.Claims, t.claim) },
		t.trimTail,
		t.saveCounts,
		t.saveTallies,
		t.saveRunningBits,
		func() error { return t.saveBatchID(b) },
	} {
		if err := kind(); err != nil {
			return err
		}
	}
	return nil
}

// each applies f to every op, and gives on the room that it made. A refusal stays
// with its op; another error is of the whole batch and ends it.
func applyEach[Op any](t *tx, ops []*Op, f func(*Op) error) error {
	for _, op := range ops {
		if err := f(op); err != nil {
			return err
		}
		if _, err := t.unparkFreedKeys(); err != nil {
			return err
		}
	}
	return nil
}

// count counts a job where it is now and no more where it was: every change of a
// job's state comes through here, and must be a legal one. It returns the turn of a
// job that is queued or parked now. From the zero state comes a new job.
func (t *tx) count(j *job.Job, from job.State) (turn int64) {
	if !job.CanMove(from, j.State) {
		panic(fmt.Sprintf("sqlite: %s → %s is no legal move", from, j.State))
	}
	return t.countUnchecked(j, from)
}

// countAny is count for any change: a job whose row is damaged ends as failed
// wherever it stood.
func (t *tx) countUnchecked(j *job.Job, from job.State) (turn int64) {
	q := t.changedQueue(j.Queue)
	turn, mayFollow := q.Move(j, from)
	if j.Tally != "" {
		t.tallyChange(tallyKeyOf(j)).Move(from, j.State, j.InputBytes)
	}
	if k := fairqueue.KeyOf(j); mayFollow && q.Follows(k) {
		t.freedKeys = append(t.freedKeys, freedKey{j.Queue, k})
	}
	return turn
}
