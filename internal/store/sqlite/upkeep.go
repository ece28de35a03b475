package sqlite

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func (t *tx) due(op *store.Due) error {
	op.Err, op.Ready, op.Expired, op.More = nil, 0, nil, false
	expired, err := t.expire(op)
	if err != nil {
		return err
	}
	// Parked jobs were ready before those that become ready now.
	followed, err := t.unparkFreedKeys()
	if err != nil {
		return err
	}
	unparked, err := t.unparkChangedLimits(op.Limit)
	if err != nil {
		return err
	}
	ready, late, err := t.makeReady(op.Limit)
	op.Ready = followed + unparked + ready
	op.More = expired == op.Limit || unparked == op.Limit || late == op.Limit
	return err
}

// expire ends waiting jobs past their queue time, and returns how many it read.
func (t *tx) expire(op *store.Due) (int, error) {
	rows, n, err := t.readWaiting(t.q.expired.time(t.now).int(int64(op.Limit)))
	for i := range rows {
		if err != nil {
			break
		}
		from := rows[i].State
		rows[i].Expire(op.Failure, t.now)
		err = t.endWaiting(&rows[i], from, op.SkipAtEnd)
		op.Expired = append(op.Expired, rows[i].Job)
	}
	return n, err
}

// makeReady queues or parks scheduled jobs whose time has come. It returns how many, and how
// many rows it read.
func (t *tx) makeReady(limit int) (ready, late int, err error) {
	rows, late, err := t.readWaiting(t.q.due.time(t.now).int(int64(limit)))
	for i := range rows {
		if err == nil {
			err = t.makeOneReady(&rows[i])
		}
	}
	return len(rows), late, err
}

func (t *tx) makeOneReady(j *row) error {
	if t.suspects.running > 0 && j.Suspect() {
		return t.parkSuspect(j, 0)
	}
	return t.moveReady(j, t.readyState(&j.Job))
}

// Counts returns the counts of all queues; see [store.UpkeepReader].
func (s *Store) Counts(context.Context) (map[string]job.Counts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil {
		return nil, unreadable(s.noteDamage(err))
	}
	counts := make(map[string]job.Counts, len(s.queues))
	for name, q := range s.queues {
		if q.stored {
			counts[name] = q.Counts
		}
	}
	return counts, nil
}

// NextDue returns when the next job becomes due; see [store.UpkeepReader].
func (s *Store) NextDue(ctx context.Context) (ready, expires time.Time, err error) {
	err = s.read(ctx, func(r *reader) error {
		if _, err := r.nextReady.first(func(c column) error { ready = c.time(0); return nil }); err != nil {
			return err
		}
		_, err := r.nextExpiry.first(func(c column) error { expires = c.time(0); return nil })
		return err
	})
	// Any batch queues the parked suspect. A ready time of now makes the engine commit one.
	if now := s.Now(); s.suspectStuck.Load() && (ready.IsZero() || ready.After(now)) {
		ready = now
	}
	return ready, expires, err
}

// OldestQueued returns when the oldest waiting job became ready; see [store.UpkeepReader].
func (s *Store) OldestQueued(_ context.Context, queue string) (time.Time, error) {
	return s.queueViews.oldest(queue), nil
}
