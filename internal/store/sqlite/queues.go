package sqlite

import (
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
)

// saveCounts writes the counts that the batch changed.
func (t *tx) saveCounts() error {
	for _, name := range t.memory.Changed() {
		c := &t.memory.Queue(name).Counts
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

// queueViews are copies of queues that readers use without the store's mutex.
type queueViews struct {
	mu    sync.Mutex
	views map[string]*queueView // guarded by mu
}

// queueView is a queue as of the last commit.
type queueView struct {
	oldest  time.Time
	tenants []fairqueue.TenantTurn
	lanes   []fairqueue.LaneTurn
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
	at.oldest, at.tenants, at.lanes = q.OldestReady(), q.TenantTurns(at.tenants), q.LaneTurns(at.lanes)
}

// turnsBefore returns the turns in the lanes of a job's tenant before which jobs are claimed before
// the job; see [fairqueue.TurnsBefore].
func (s *queueViews) turnsBefore(queue string, own fairqueue.LaneTurn) []fairqueue.LaneTurn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.views[queue]; at != nil {
		return fairqueue.TurnsBefore(at.lanes, own)
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
