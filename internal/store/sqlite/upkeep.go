package sqlite

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func (t *tx) due(op *store.Due) error {
	op.Err, op.Ready, op.Expired, op.More = nil, 0, nil, false
	expired, err := t.jobs(t.q.expired.time(t.now).int(int64(op.Limit)))
	if err != nil {
		return err
	}
	for i := range expired {
		if op.Failure != nil {
			expired[i].Failure = op.Failure
		}
		if err := t.endWaiting(&expired[i], job.Expired, op.Keep); err != nil {
			return err
		}
	}
	for i := range expired {
		op.Expired = append(op.Expired, expired[i].Job)
	}
	ready, err := t.makeReady(op.Limit)
	op.Ready = ready
	op.More = ready == op.Limit || len(expired) == op.Limit
	return err
}

func (t *tx) jobs(q *query) (list []row, err error) {
	err = q.each(func(c column) error {
		j, err := scanRow(c)
		list = append(list, j)
		return err
	})
	return list, err
}

// makeReady queues the scheduled jobs whose time has come.
func (t *tx) makeReady(limit int) (int, error) {
	list, err := t.jobs(t.q.due.time(t.now).int(int64(limit)))
	if err != nil {
		return 0, err
	}
	for i := range list {
		turn := t.turns.enter(&list[i].Job)
		t.moved(list[i].Queue, job.Scheduled, job.Queued)
		if err := t.q.ready.int(turn).int(list[i].n).run(); err != nil {
			return 0, err
		}
	}
	return len(list), nil
}

// Counts returns the kept counts; see [store.Upkeep].
func (s *Store) Counts(context.Context) (map[string]store.Counts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make(map[string]store.Counts, len(s.counts))
	for name, c := range s.counts {
		counts[name] = *c
	}
	return counts, nil
}

// NextDue is when the clock has something to do; see [store.Upkeep].
func (s *Store) NextDue(ctx context.Context) (ready, expires time.Time, err error) {
	err = s.read(ctx, func(r *reader) error {
		if _, err := r.nextReady.first(func(c column) error { ready = c.time(0); return nil }); err != nil {
			return err
		}
		_, err := r.nextExpiry.first(func(c column) error { expires = c.time(0); return nil })
		return err
	})
	return ready, expires, err
}

// OldestQueued is since when the head of a queue has waited; see [store.Upkeep].
func (s *Store) OldestQueued(ctx context.Context, queue string) (since time.Time, err error) {
	err = s.read(ctx, func(r *reader) error {
		_, err := r.head.text(queue).first(func(c column) error { since = c.time(0); return nil })
		return err
	})
	return since, err
}
