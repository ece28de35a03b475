package sqlite

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// load fills the memory from the disk: kept counts, running jobs, turns. What it
// reads of waiting jobs it reads from indexes alone, for there may be a million.
func (s *Store) load() error {
	s.queues = map[string]*queueState{}
	for _, part := range []struct {
		q    *query
		each func(column) error
	}{
		{s.q.lastBatch, s.loadLast},
		{s.q.loadCounts, s.loadCount},
		{s.q.loadLine, s.loadReady()},
		{s.q.loadDue, s.loadScheduled()},
	} {
		if err := part.q.each(part.each); err != nil {
			return err
		}
	}
	return s.loadRunning()
}

// loadLast reads which batch was applied last, and which row numbers were given. Those
// that a failed commit gave are not given again either.
func (s *Store) loadLast(c column) error {
	c.stmt.ColumnBytes(0, s.last[:])
	s.lastJob = max(s.lastJob, c.int(1))
	s.tail.last = max(s.tail.last, c.int(2))
	return nil
}

func (s *Store) loadCount(c column) error {
	q := s.queue(c.text(0))
	q.kept = true
	q.counts = job.Counts{
		Scheduled: c.int(1), Queued: c.int(2), Parked: c.int(3), Running: c.int(4),
		Succeeded: c.int(5), Failed: c.int(6), Cancelled: c.int(7), Expired: c.int(8), Retried: c.int(9),
		WaitingBytes: c.int(10), Paused: c.int(11) != 0,
	}
	return nil
}

// loadReady counts queued and parked jobs: queue, lane, turn, key, priority.
func (s *Store) loadReady() func(column) error {
	queue := queueColumn{s: s}
	var lane, key []byte
	return func(c column) error {
		lane, key = c.raw(1, lane), c.raw(3, key)
		state := job.Queued
		if len(lane) > 0 {
			state = job.Parked
		}
		queue.read(c, 0).restore(key, state, int(c.int(4)), c.int(2))
		return nil
	}
}

// loadScheduled counts scheduled jobs: queue, key.
func (s *Store) loadScheduled() func(column) error {
	queue := queueColumn{s: s}
	var key []byte
	return func(c column) error {
		key = c.raw(1, key)
		queue.read(c, 0).restore(key, job.Scheduled, 0, 0)
		return nil
	}
}

// queueColumn reads the names of queues, of which many in a row are the same.
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
