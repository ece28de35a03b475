package engine

import "github.com/meanwhile-run/meanwhile/internal/job"

// hold says what holds a job back, without a read: by what is known of its queue, which
// another process may have changed up to about a second ago.
func (q *queue) hold(s *Snapshot) job.Hold {
	if h := s.Hold(); h != "" || s.State != job.Queued {
		return h
	}
	if q == nil {
		return job.HeldByNoWorker // the queue is not configured here
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.holdLocked(s.Position)
}

// holdLocked says what holds back a queued job with so many before it.
func (q *queue) holdLocked(before int) job.Hold {
	c, free := &q.counts, q.claiming
	for _, s := range q.servers {
		free += max(s.free, 0)
	}
	switch {
	case c.Paused:
		return job.HeldByPause
	case q.heldLocked(0):
		return job.HeldByMaxRunning
	case len(q.servers) == 0 && c.Running == 0:
		return job.HeldByNoWorker
	case before >= free:
		return job.HeldByTurn
	}
	return ""
}
