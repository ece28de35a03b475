package sqlite

import (
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// queueState is a queue in memory.
type queueState struct {
	*fairqueue.Queue
	stored      bool  // its counts are on disk: the queue once had a job or was paused
	batchNumber int64 // the last batch that used it
	named       bool  // that batch answers its counts
	changed     bool  // that batch changed its counts
}

func (s *Store) queue(name string) *queueState {
	q := s.queues[name]
	if q == nil {
		q = &queueState{Queue: fairqueue.New()}
		s.queues[name] = q
	}
	return q
}

// queue returns a queue with the limits of the batch.
func (t *tx) queue(name string) *queueState {
	q := t.Store.queue(name)
	if q.batchNumber != t.batchNumber {
		// Limits come with each batch: the configuration may have changed since the last one.
		q.batchNumber, q.Limits, q.named, q.changed = t.batchNumber, t.batch.Limits[name], false, false
	}
	return q
}

// namedQueue returns a queue whose counts the batch answers.
func (t *tx) namedQueue(name string) *queueState {
	q := t.queue(name)
	if !q.named {
		q.named = true
		t.namedQueues = append(t.namedQueues, name)
	}
	return q
}

// changedQueue returns a queue whose counts are about to change.
func (t *tx) changedQueue(name string) *queueState {
	q := t.namedQueue(name)
	if !q.changed {
		q.changed, q.stored = true, true
		t.changedQueues = append(t.changedQueues, name)
	}
	return q
}

// saveCounts writes the counts that the batch changed, and adds to the batch's answer the counts
// of all queues that it names.
func (t *tx) saveCounts() error {
	t.batch.Counts = make(map[string]job.Counts, len(t.namedQueues))
	for _, name := range t.namedQueues {
		t.batch.Counts[name] = t.queues[name].Counts
	}
	for _, name := range t.changedQueues {
		c := t.queues[name].Counts
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
	t.changedQueue(op.Queue).Counts.Paused = op.Paused
	return nil
}

// queueViews are copies of queues that readers use without the store's mutex.
type queueViews struct {
	mu    sync.Mutex
	views map[string]*queueView // guarded by mu
}

// queueView is a queue as of the last commit.
type queueView struct {
	oldest  time.Time
	tenants []fairqueue.TenantTurn
	needed  []string // the resources of queued jobs
}

func (s *queueViews) update(name string, q *fairqueue.Queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.views[name]
	if at == nil {
		if s.views == nil {
			s.views = map[string]*queueView{}
		}
		at = &queueView{}
		s.views[name] = at
	}
	// The buffer is reused, under the mutex.
	at.oldest, at.tenants, at.needed = q.OldestReady(), q.TenantTurns(at.tenants), q.Resources(at.needed)
}

// resources returns the resources that queued jobs need, with "" for none.
func (s *queueViews) resources(queue string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.views[queue]; at != nil {
		return slices.Clone(at.needed)
	}
	return nil
}

func (s *queueViews) oldest(queue string) (since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.views[queue]; at != nil {
		since = at.oldest
	}
	return since
}

// position returns how many jobs of the queue will be claimed before a job. ownBefore of them
// belong to the job's own tenant.
func (s *queueViews) position(queue, tenant string, rank int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.views[queue]; at != nil {
		rank = fairqueue.Position(at.tenants, tenant, rank)
	}
	return rank
}
