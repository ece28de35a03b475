package sqlite

import (
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// told is what readers know of what running jobs have in the tail: that part of it which
// is committed.
type told struct {
	mu   sync.Mutex
	jobs map[job.ID]aside // guarded by mu
}

// aside is what a running job has said, at some commit. A read that asks for it before
// its own moment finds in the log whatever has left the block since.
type aside struct {
	block         []byte // never written to again
	cursor, total int64
	progress      job.Progress
}

func (t *told) of(id job.ID) aside {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.jobs[id]
}

// tell notes that readers are to be told anew of a job, once the batch is committed.
func (t *tx) tell(h *held) {
	h.spoke = true
	t.spoken = append(t.spoken, h)
}

// tellAll tells readers what the batch, which is committed, has changed.
func (t *tx) tellAll() {
	if len(t.spoken) == 0 {
		return
	}
	t.told.mu.Lock()
	defer t.told.mu.Unlock()
	for _, h := range t.spoken {
		if t.running[h.job.ID] == h {
			t.told.jobs[h.job.ID] = h.aside()
		} else {
			delete(t.told.jobs, h.job.ID)
		}
	}
}

// tellLoaded tells readers of everything, after an opening or a commit that failed.
func (s *Store) tellLoaded() {
	jobs := map[job.ID]aside{}
	for id, h := range s.running {
		if len(h.block) > 0 {
			h.spoke = true
			jobs[id] = h.aside()
		}
	}
	s.told.mu.Lock()
	defer s.told.mu.Unlock()
	s.told.jobs = jobs
}

func (h *held) aside() aside {
	return aside{h.block, h.job.Cursor, h.job.OutputBytes, h.job.Progress}
}
