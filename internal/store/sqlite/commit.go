package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// tx is one batch being applied. It ends with the commit. It is the [ops.Tx] of the batch.
type tx struct {
	*Store
	now       time.Time
	wrote     bool          // the batch changed a row
	wroteRows bool          // it changed a side row
	toPublish []*runningJob // jobs whose tailView changes with the commit
}

// Now returns the store's clock at the beginning of the batch; see [ops.Tx].
func (t *tx) Now() time.Time { return t.now }

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
	t := &tx{Store: s, now: s.Now()}
	if err := t.run(b); err != nil {
		// The ops have changed the memory, but not the disk.
		s.staleMemory = true
		return err
	}
	s.recent.add(b.ID)
	s.suspectReady.Store(s.memory.SuspectIsReady())
	t.publish()
	for _, name := range s.memory.Changed() {
		s.queueViews.update(name, s.memory.Queue(name))
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

// apply applies the ops, and writes what concerns all of them once.
func (t *tx) apply(b *store.Batch) error {
	if err := ops.Apply(t, t.memory, b, t.atEnd); err != nil {
		return err
	}
	if err := t.trimTail(); err != nil {
		return err
	}
	if err := t.saveCounts(); err != nil {
		return err
	}
	if err := t.saveRunningBits(); err != nil {
		return err
	}
	return t.saveBatchID(b)
}
