package engine

import "github.com/meanwhile-run/meanwhile/internal/job"

// hold says what holds a job back, without a read: by what is known of its queue, which
// another process may have changed up to about a second ago.
func (q *queue) holdReason(s *Snapshot) job.HeldBackBy {
	if h := s.HeldBackReason(); h != "" || s.State != job.Queued {
		return h
	}
	if q == nil {
		return job.HeldBackByNoWorker // the queue is not configured here
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.holdReasonLocked(s.Position)
}

// holdLocked says what holds back a queued job with so many before it.
func (q *queue) holdReasonLocked(before int) job.HeldBackBy {
	counts, free := &q.counts, q.claiming
	for _, c := range q.consumers {
		free += max(c.free, 0)
	}
	switch {
	case counts.Paused:
		return job.HeldBackByPause
	case q.blockedLocked(0):
		return job.HeldBackByMaxRunning
	case len(q.consumers) == 0 && counts.Running == 0:
		return job.HeldBackByNoWorker
	case before >= free:
		return job.HeldBackByTurn
	}
	return ""
}
