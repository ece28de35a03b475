package sqlite

import (
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// load loads counts, running jobs and turns from the disk. There may be a million waiting jobs,
// so it reads only indexes for them.
func (s *Store) load() error {
	s.queues = map[string]*queueState{}
	s.suspects = suspects{}
	for _, part := range []struct {
		q    *query
		each func(column) error
	}{
		{s.q.loadApplied, s.loadApplied},
		{s.q.loadIDSkew, func(c column) error { s.idSkew.Store(c.int(0)/1000 + 1); return nil }},
		{s.q.loadCounts, s.loadCount},
		{s.q.loadReady, s.loadReady()},
		{s.q.loadDue, s.loadScheduled()},
	} {
		if err := part.q.each(part.each); err != nil {
			return err
		}
	}
	if err := s.loadRunning(); err != nil {
		return err
	}
	for name, q := range s.queues {
		s.queueViews.update(name, q.Queue)
	}
	s.suspectStuck.Store(s.suspects.stuck())
	return nil
}

// loadApplied loads the ids of the last batches and the last row numbers. It keeps a higher number
// in memory, because a number that a failed commit used is not used again.
func (s *Store) loadApplied(c column) error {
	s.recent.load(c.bytes(0))
	s.lastJobRow = max(s.lastJobRow, c.int(1))
	s.tail.lastRow = max(s.tail.lastRow, c.int(2))
	return nil
}

func (s *Store) loadCount(c column) error {
	q := s.queue(c.text(0))
	q.stored = true
	q.Counts = job.Counts{
		Scheduled: c.int(1), Queued: c.int(2), Parked: c.int(3), Running: c.int(4),
		Succeeded: c.int(5), Failed: c.int(6), Cancelled: c.int(7), Expired: c.int(8), Retried: c.int(9),
		WaitingBytes: c.int(10), Paused: c.int(11) != 0,
	}
	return nil
}

// loadReady returns a function that counts queued and parked jobs, given queue, lane, turn, key,
// priority and run_at.
func (s *Store) loadReady() func(column) error {
	queue := queueColumn{s: s}
	var raw, key, tenant []byte
	name, resource, state := "", "", job.Queued // of the previous row; many consecutive rows have the same lane
	return func(c column) error {
		// The names are compared as bytes: of a million rows, few need a new string.
		if raw = c.raw(1, raw); string(raw) != name {
			name = string(raw)
			var of string
			state, of, resource = parseLane(name)
			tenant = []byte(of)
		}
		key = c.raw(3, key)
		q := queue.read(c, 0)
		if strings.HasPrefix(name, suspectLanePrefix) {
			s.suspects.noteParked(queue.name)
		}
		q.Restore(tenant, key, resource, state, int(c.int(4)), c.int(2), c.time(5))
		return nil
	}
}

// loadScheduled returns a function that counts scheduled jobs, given queue, key and tenant.
func (s *Store) loadScheduled() func(column) error {
	queue := queueColumn{s: s}
	var key, tenant []byte
	return func(c column) error {
		key, tenant = c.raw(1, key), c.raw(2, tenant)
		queue.read(c, 0).Restore(tenant, key, "", job.Scheduled, 0, 0, time.Time{})
		return nil
	}
}

// queueColumn reads names of queues; many consecutive rows have the same one.
type queueColumn struct {
	s    *Store
	raw  []byte
	name string
	last *queueState
}

func (q *queueColumn) read(c column, i int) *queueState {
	if q.raw = c.raw(i, q.raw); q.last == nil || string(q.raw) != q.name {
		q.name = string(q.raw)
		q.last = q.s.queue(q.name)
	}
	return q.last
}
