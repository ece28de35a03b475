package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// While several processes are busy, a batch waits for the lock of all moves. What its process has to
// write meanwhile would wait for the batch after it, and batches would be small. So the engine calls
// Begin before it makes a batch: the batch then has all that came while Begin waited.

// Begin begins the transaction of the next batch, if other processes are busy; see [store.Beginner].
func (s *Store) Begin(ctx context.Context) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeFailure()
	if s.begun != nil || s.inDoubt || s.mustComeLater(store.BatchID{}) || time.Since(s.foreignAt) >= busyFor || s.drain() != nil || s.usable(ctx) != nil {
		return s.cancelBegun
	}
	t := newTx(context.WithoutCancel(ctx), s)
	t.locked = true
	if err := t.begin(); err != nil {
		switch {
		case errors.Is(err, errGap):
			s.noteGap()
		default:
			s.noteLost(err)
			if codeOf(err) == "55P03" {
				s.endSilentHolder(ctx)
			}
		}
		return s.cancelBegun
	}
	s.begun = &t.now
	return s.cancelBegun
}

// busyFor is how long another process counts as busy after a move that it made.
const busyFor = time.Second

// begin takes the lock and follows the moves of other processes.
func (t *tx) begin() error {
	s := t.s
	var reading int64
	var rows []move
	t.addBegin()
	t.reads.add(lockMoves, nil, intParam(movesLock))
	t.reads.add(readClock, func(r *record) { reading = r.int() })
	t.reads.add(selectMoves, func(r *record) { rows = append(rows, scanMove(r)) }, intParam(s.lastSeq))
	asked := time.Now()
	if err := t.read(); err != nil {
		return err
	}
	s.clock.note(time.UnixMicro(reading), asked, time.Now())
	if t.now = time.UnixMicro(reading); s.clock.fixed != nil {
		t.now = s.Now()
	}
	return s.followMoves(rows)
}

// cancelBegun ends a transaction for which there is no batch.
func (s *Store) cancelBegun() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abandonBegun()
}

func (s *Store) abandonBegun() {
	if s.begun != nil {
		_ = s.abandon(context.Background())
	}
}
