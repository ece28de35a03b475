package sqlite

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Counts returns the counts of all queues; see [store.UpkeepReader].
func (s *Store) Counts(context.Context) (map[string]job.Counts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil {
		return nil, unreadable(s.noteDamage(err))
	}
	return s.memory.Counts(), nil
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
	if now := s.Now(); s.suspectReady.Load() && (ready.IsZero() || ready.After(now)) {
		ready = now
	}
	return ready, expires, err
}

// OldestQueued returns when the oldest waiting job became ready; see [store.UpkeepReader].
func (s *Store) OldestQueued(_ context.Context, queue string) (time.Time, error) {
	return s.queueViews.oldest(queue), nil
}
