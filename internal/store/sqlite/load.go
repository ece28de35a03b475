package sqlite

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// load loads counts, running jobs and turns from the disk. There may be a million waiting jobs,
// so it reads only indexes for them.
func (s *Store) load() error {
	load := s.memory.Load()
	for _, part := range []struct {
		q    *query
		each func(column) error
	}{
		{s.q.loadApplied, s.loadApplied},
		{s.q.loadIDSkew, func(c column) error { s.idSkew.Store(c.int(0)/1000 + 1); return nil }},
		{s.q.loadCounts, func(c column) error { return loadCount(load, c) }},
		{s.q.loadReady, loadReady(load)},
		{s.q.loadDue, loadScheduled(load)},
	} {
		if err := part.q.each(part.each); err != nil {
			return err
		}
	}
	if err := s.loadRunning(load); err != nil {
		return err
	}
	for name, q := range s.memory.Queues() {
		s.queueViews.update(name, q)
	}
	s.suspectReady.Store(s.memory.SuspectIsReady())
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

func loadCount(load *ops.Load, c column) error {
	load.Counts(c.text(0), job.Counts{
		Scheduled: c.int(1), Queued: c.int(2), Parked: c.int(3), Running: c.int(4),
		Succeeded: c.int(5), Failed: c.int(6), Cancelled: c.int(7), Expired: c.int(8), Retried: c.int(9),
		WaitingBytes: c.int(10), Paused: c.int(11) != 0,
	})
	return nil
}

// loadReady returns a function that counts queued and parked jobs, given queue, lane, turn, key,
// priority and run_at. It reads names into buffers.
func loadReady(load *ops.Load) func(column) error {
	var queue, lane, key []byte
	return func(c column) error {
		queue, lane, key = c.raw(0, queue), c.raw(1, lane), c.raw(3, key)
		load.Ready(queue, lane, key, int(c.int(4)), c.int(2), c.time(5))
		return nil
	}
}

// loadScheduled returns a function that counts scheduled jobs, given queue, key and tenant.
func loadScheduled(load *ops.Load) func(column) error {
	var queue, key, tenant []byte
	return func(c column) error {
		queue, key, tenant = c.raw(0, queue), c.raw(1, key), c.raw(2, tenant)
		load.Scheduled(queue, tenant, key)
		return nil
	}
}
