package sqlite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// tx is one batch being applied. It ends with the commit.
type tx struct {
	*Store
	batch         *store.Batch
	batchNumber   int64 // counts the batches of this process
	now           time.Time
	wrote         bool                      // the batch changed a row
	wroteRows     bool                      // it changed a side row
	namedQueues   []string                  // queues whose counts the batch answers
	changedQueues []string                  // queues whose counts it changed
	room          fairqueue.Room            // for further claims
	freedKeys     []freedKey                // keys in which the current op freed a place
	tallies       map[tallyKey]*tallyChange // changes to tallies
	kept          map[job.Owner]int64       // changes of the bytes that owners keep
	toPublish     []*runningJob             // jobs whose tailView changes with the commit
}

// Apply applies a batch; see [store.Store].
func (s *Store) Apply(ctx context.Context, b *store.Batch) (synced func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx, b); err != nil {
		return nil, fmt.Errorf("%w: %w", s.noteDamage(err), store.ErrNotCommitted)
	}
	if s.recent.has(b.ID) {
		// An earlier call applied the batch and answered its ops. Only the sync is missing.
		s.syncer.begin(true)
		s.syncer.end(true)
	} else if err := s.applyWithReserve(ctx, b); err != nil {
		return nil, s.noteDamage(err)
	}
	commit, idle := s.syncer.visible(), b.Len() <= maxIdleOps
	return func() error { return s.syncer.wait(commit, idle) }, nil
}

// maxIdleOps is the size of a batch up to which the server counts as idle; see [syncer.wait].
const maxIdleOps = 4

// usable returns why no batch can be applied. It reloads the memory after a failed commit.
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

// refresh reloads the memory after a failed commit, to discard that commit's changes. Call it
// before every read of the memory.
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

// applyWithReserve applies a batch. On a full disk it frees space and tries again, as long as
// freeSpaceFor helps.
func (s *Store) applyWithReserve(ctx context.Context, b *store.Batch) error {
	if s.exceedsReserve(b) {
		return fmt.Errorf("the rest of the disk space is reserved for deletes: %w: %w", store.ErrFull, store.ErrNotCommitted)
	}
	err := s.applyBatch(b)
	for try := 0; s.freeSpaceFor(b, err, try); try++ {
		// The failed batch changed the memory: usable loads it again.
		if err := s.usable(ctx, b); err != nil {
			return fmt.Errorf("%w: %w", err, store.ErrNotCommitted)
		}
		err = s.applyBatch(b)
	}
	if errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrNotCommitted) {
		// A COMMIT without space leaves frames that no reader sees and the next commit overwrites.
		err = fmt.Errorf("%w: %w", err, store.ErrNotCommitted)
	}
	return err
}

func (s *Store) applyBatch(b *store.Batch) error {
	b.Moved, b.Removed, b.FollowUps, b.Damaged = nil, nil, nil, nil
	s.batchCount++
	t := &tx{Store: s, batch: b, batchNumber: s.batchCount, now: s.Now(), room: maps.Clone(b.Room)}
	if err := t.run(b); err != nil {
		// The ops have changed the memory, but not the disk.
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

// run applies the batch between BEGIN and COMMIT. After an error before the COMMIT nothing was
// applied. After an error of the COMMIT itself the outcome is unknown.
func (t *tx) run(b *store.Batch) error {
	if err := t.q.begin.run(); err != nil {
		return classify(err)
	}
	if err := t.apply(b); err != nil {
		_ = t.q.rollback.run()
		return classify(err)
	}
	// Readers may see the commit before COMMIT returns, so count it first.
	t.syncer.begin(t.wroteRows)
	err := t.q.commit.run()
	t.syncer.end(err == nil)
	if err != nil {
		// SQLite ends the transaction itself for some errors, and not for others.
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

// classify wraps an error before the COMMIT in one of the errors that the caller checks for.
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
		// A suspect that may run now can be claimed by the same batch.
		t.queueSuspect,
		func() error { return applyEach(t, b.Claims, t.claim) },
		// What follows is written once for all ops of the batch.
		t.trimTail,
		t.saveCounts,
		t.saveTallies,
		t.saveKept,
		t.saveRunningBits,
		func() error { return t.saveBatchID(b) },
	} {
		if err := kind(); err != nil {
			return err
		}
	}
	return nil
}

// applyEach applies f to every op, and after each op queues parked jobs in the places that it
// freed. A refusal stays with its op; any other error ends the batch.
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

// updateCounts moves a job in the counts from one state to its current one. Every change of a
// job's state must call it and must be legal. It returns the turn of a job that is now queued or
// parked. A new job comes from state 0.
func (t *tx) updateCounts(j *job.Job, from job.State) (turn int64) {
	if !job.CanMove(from, j.State) {
		panic(fmt.Sprintf("sqlite: %s → %s is no legal move", from, j.State))
	}
	return t.updateCountsUnchecked(j, from)
}

// updateCountsUnchecked is updateCounts without the check: a job with a damaged row fails from
// any state.
func (t *tx) updateCountsUnchecked(j *job.Job, from job.State) (turn int64) {
	q := t.changedQueue(j.Queue)
	turn, freed := q.Move(j, from)
	if j.Tally != "" {
		t.tallyChange(tallyKeyOf(j)).Move(from, j.State, j.InputBytes)
	}
	if k := fairqueue.KeyOf(j); freed && q.TryUnpark(k) {
		t.freedKeys = append(t.freedKeys, freedKey{j.Queue, k})
	}
	return turn
}
