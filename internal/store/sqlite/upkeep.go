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

// old is an ended job that may be pruned.
type old struct {
	n     int64
	owner job.Owner
	idem  string
}

func (t *tx) prune(op *store.Prune) error {
	op.Err, op.Deleted, op.Next, op.Seen, op.More = nil, 0, 0, time.Time{}, false
	var gone []old
	seen := 0
	err := t.q.oldest.int(op.After).int(int64(op.Limit)).each(func(c column) error {
		seen++
		op.Next, op.Seen = c.int(0), c.time(6)
		if expires := c.time(4); job.State(c.int(3)).Ended() && !expires.After(t.now) {
			gone = append(gone, old{op.Next, job.Owner{Tenant: c.text(1), User: c.text(2)}, c.text(5)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if seen < op.Limit {
		op.Next = 0
	}
	for _, o := range gone {
		if err := t.remove(o.n, o.owner, o.idem); err != nil {
			return err
		}
	}
	op.Deleted = len(gone)
	op.More, err = t.pruneLeftovers(op.Limit)
	return err
}

// pruneLeftovers forgets what outlived its job for as long as was promised, and
// says whether there may be more of it.
func (t *tx) pruneLeftovers(limit int) (more bool, err error) {
	type leftover struct {
		row   int64
		owner job.Owner
		key   string
	}
	var keys []leftover
	err = t.q.oldLeftovers.time(t.now).int(int64(limit)).each(func(c column) error {
		keys = append(keys, leftover{c.int(0), job.Owner{Tenant: c.text(1), User: c.text(2)}, c.text(3)})
		return nil
	})
	if err != nil {
		return false, err
	}
	for _, k := range keys {
		if err := t.dropKey(k.owner, k.key); err != nil {
			return false, err
		}
		if err := t.q.deleteLeftover.int(k.row).run(); err != nil {
			return false, err
		}
	}
	var ids []job.ID
	err = t.q.oldDeleted.time(t.now).int(int64(limit)).each(func(c column) error {
		ids = append(ids, c.id(0))
		return nil
	})
	for i := range ids {
		if err == nil {
			err = t.q.forget.id(&ids[i]).run()
		}
	}
	return len(keys) == limit || len(ids) == limit, err
}

// dropKey forgets an idempotency key whose time is over, unless it was used anew.
func (t *tx) dropKey(o job.Owner, key string) error {
	var until time.Time
	known, err := t.q.idempotent.text(o.Tenant).text(o.User).text(key).first(func(c column) error {
		until = c.time(2)
		return nil
	})
	if err != nil || !known || until.After(t.now) {
		return err
	}
	return t.q.deleteIdempotent.text(o.Tenant).text(o.User).text(key).run()
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
