package sqlite

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// queueState is what the memory keeps of a queue.
type queueState struct {
	queueTurns
	counts job.Counts
	kept   bool // its counts are on disk too: it ever had a job, or was paused

	// Of the batch that asked for the queue last.
	batch  int64      // its number in this process
	limits job.Limits // what it holds the queue's jobs to
	moved  bool       // it changed the counts
}

func (s *Store) queue(name string) *queueState {
	q := s.queues[name]
	if q == nil {
		q = &queueState{queueTurns: newTurns()}
		s.queues[name] = q
	}
	return q
}

// held is what the jobs of a key are held to. Those without a key belong to nobody
// in particular, and are held to what their queue is.
func (q *queueState) held(key string) job.Limits {
	l := q.limits
	if key == "" {
		l.KeyRunning, l.KeyWaiting = 0, 0
	}
	return l
}

// queue is the state of a queue, with the batch's limits.
func (t *tx) queue(name string) *queueState {
	q := t.Store.queue(name)
	if q.batch != t.number {
		q.batch, q.limits, q.moved = t.number, t.batch.Limits[name], false
	}
	return q
}

// counted is the state of a queue whose counts are about to change.
func (t *tx) counted(name string) *queueState {
	q := t.queue(name)
	if !q.moved {
		q.moved, q.kept = true, true
		t.moved = append(t.moved, name)
	}
	return q
}

// saveCounts writes the counts that the batch changed, and answers them.
func (t *tx) saveCounts() error {
	t.batch.Counts = make(map[string]job.Counts, len(t.moved))
	for _, name := range t.moved {
		c := t.queues[name].counts
		t.batch.Counts[name] = c
		err := t.q.saveCounts.text(name).
			int(c.Scheduled).int(c.Queued).int(c.Parked).int(c.Running).
			int(c.Succeeded).int(c.Failed).int(c.Cancelled).int(c.Expired).int(c.Retried).
			int(c.WaitingBytes).flag(c.Paused).run()
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) pause(op *store.Pause) error {
	op.Err = nil
	t.counted(op.Queue).counts.Paused = op.Paused
	return nil
}
