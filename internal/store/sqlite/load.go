package sqlite

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// load fills the memory from the disk: kept counts, running jobs, turns. What it
// reads of waiting jobs it reads from indexes alone, for there may be a million.
func (s *Store) load() error {
	s.counts = map[string]*store.Counts{}
	s.turns = turns{}
	s.damaged = nil
	clear(s.running)
	for _, part := range []struct {
		q    *query
		each func(column) error
	}{
		{s.q.lastBatch, func(c column) error { c.stmt.ColumnBytes(0, s.last[:]); return nil }},
		{s.q.lastRow, func(c column) error { s.rows = c.int(0); return nil }},
		{s.q.loadCounts, s.loadCount},
		{s.q.loadRunning, s.loadHeld},
		{s.q.loadLine, s.turns.loadReady()},
		{s.q.loadDue, s.turns.loadScheduled()},
	} {
		if err := part.q.each(part.each); err != nil {
			return err
		}
	}
	for _, h := range s.running {
		if err := s.loadOutput(h); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) loadCount(c column) error {
	s.counts[c.text(0)] = &store.Counts{
		Scheduled: c.int(1), Queued: c.int(2), Parked: c.int(3), Running: c.int(4),
		Succeeded: c.int(5), Failed: c.int(6), Cancelled: c.int(7), Expired: c.int(8), Retried: c.int(9),
		WaitingBytes: c.int(10), Paused: c.int(11) != 0,
	}
	return nil
}

// loadHeld takes a running job into the memory. One whose row is damaged is ended
// by the next batch.
func (s *Store) loadHeld(c column) error {
	j, err := scanRow(c)
	if err != nil {
		s.damaged = append(s.damaged, j.ID)
	}
	const at = afterJobColumns
	s.running[j.ID] = &held{
		job: j, token: c.token(at), from: j.Cursor, worker: c.text(at + 1),
		until: c.time(at + 2), deleted: c.int(at+3) != 0, idem: c.text(at + 4),
	}
	s.turns.of(j.Queue).restore([]byte(j.Key), job.Running, j.Priority, 0)
	return nil
}

// loadOutput asks the log for what the row of a running job does not keep.
func (s *Store) loadOutput(h *held) error {
	_, err := s.q.outputEnd.int(h.job.n).first(func(c column) error {
		h.job.Cursor, h.job.OutputBytes = c.int(0), c.int(1)
		return nil
	})
	return err
}

// loadReady counts queued and parked jobs: queue, lane, turn, key, priority.
func (t turns) loadReady() func(column) error {
	var queue queueColumn
	var lane, key []byte
	return func(c column) error {
		lane, key = c.raw(1, lane), c.raw(3, key)
		state := job.Queued
		if len(lane) > 0 {
			state = job.Parked
		}
		queue.of(t, c, 0).restore(key, state, int(c.int(4)), c.int(2))
		return nil
	}
}

// loadScheduled counts scheduled jobs: queue, key.
func (t turns) loadScheduled() func(column) error {
	var queue queueColumn
	var key []byte
	return func(c column) error {
		key = c.raw(1, key)
		queue.of(t, c, 0).restore(key, job.Scheduled, 0, 0)
		return nil
	}
}

// queueColumn reads the names of queues, of which many in a row are the same.
type queueColumn struct {
	raw  []byte
	name string
	last *queueTurns
}

func (q *queueColumn) of(t turns, c column, i int) *queueTurns {
	if q.raw = c.raw(i, q.raw); q.last == nil || string(q.raw) != q.name {
		q.name = string(q.raw)
		q.last = t.of(q.name)
	}
	return q.last
}
