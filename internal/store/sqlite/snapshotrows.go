package sqlite

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/dump"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// Keys calls f for each idempotency key.
func (s *Snapshot) Keys(f func(*dump.Key) error) error {
	return wrapDamage(s.q.keys.each(func(c column) error {
		k := dump.Key{Owner: c.owner(0), Key: c.text(2), KeyUse: ops.KeyUse{Job: c.id(3), Until: c.time(5)}}
		copy(k.Hash[:], c.bytes(4))
		return f(&k)
	}))
}

// Leftovers calls f for each key that outlives its job, in the order in which they were stored.
func (s *Snapshot) Leftovers(f func(*dump.Leftover) error) error {
	return wrapDamage(s.q.leftovers.each(func(c column) error {
		return f(&dump.Leftover{Owner: c.owner(0), Key: c.text(2), Until: c.time(3)})
	}))
}

// Deleted calls f for each record of a delete.
func (s *Snapshot) Deleted(f func(*dump.Deleted) error) error {
	return wrapDamage(s.q.deleted.each(func(c column) error {
		return f(&dump.Deleted{ID: c.id(0), Owner: c.owner(1), Until: c.time(3)})
	}))
}

// Rows calls f for each side row.
func (s *Snapshot) Rows(f func(*dump.Row) error) error {
	return wrapDamage(s.q.rows.each(func(c column) error {
		r := &dump.Row{RowSet: store.RowSet{Owner: c.owner(0), Kind: c.text(2), Parent: c.text(3)}, ID: c.text(4)}
		var err error
		if r.Body, err = s.ring.Open(sealed.Row(r.RowSet, r.ID), c.bytes(5)); err != nil {
			return err
		}
		return f(r)
	}))
}

// Kept calls f for each owner that keeps more than jobs.
func (s *Snapshot) Kept(f func(*dump.Kept) error) error {
	return wrapDamage(s.q.kept.each(func(c column) error {
		return f(&dump.Kept{Owner: c.owner(0), Bytes: c.int(2)})
	}))
}

// Tallies calls f for each tally.
func (s *Snapshot) Tallies(f func(*dump.Tally) error) error {
	return wrapDamage(s.q.tallies.each(func(c column) error {
		return f(&dump.Tally{Counts: c.counts(), Owner: c.owner(10), Name: c.text(12), Jobs: c.int(13)})
	}))
}

// Presences calls f for each abandon timeout.
func (s *Snapshot) Presences(f func(*dump.Presence) error) error {
	return wrapDamage(s.q.presence.each(func(c column) error {
		return f(&dump.Presence{ID: c.id(0), N: c.int(1), Owner: c.owner(2), After: time.Duration(c.int(4)) * time.Microsecond, Until: c.time(5)})
	}))
}

// Queues calls f for each queue that ever had a job or was paused.
func (s *Snapshot) Queues(f func(*dump.Queue) error) error {
	return wrapDamage(s.q.queues.each(func(c column) error {
		q := dump.Queue{Counts: c.counts(), Name: c.text(10)}
		q.Counts.Paused = c.int(11) != 0
		return f(&q)
	}))
}

// owner reads the columns tenant and usr.
func (c column) owner(i int) job.Owner { return job.Owner{Tenant: c.text(i), User: c.text(i + 1)} }

// counts reads the columns of snapshotCounts, which are the first ones.
func (c column) counts() job.Counts {
	return job.Counts{
		Scheduled: c.int(0), Queued: c.int(1), Parked: c.int(2), Running: c.int(3), Succeeded: c.int(4),
		Failed: c.int(5), Cancelled: c.int(6), Expired: c.int(7), Retried: c.int(8), WaitingBytes: c.int(9),
	}
}
