package sqlite

import (
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// told is what readers know of what running jobs have in the tail: that part of it which
// is committed.
type tailViews struct {
	mu    sync.Mutex
	views map[job.ID]tailView // guarded by mu
}

// aside is what a running job has said, at some commit. A read that asks for it before
// its own moment finds in the log whatever has left the block since.
type tailView struct {
	block         []byte // never written to again
	cursor, total int64
	progress      job.Progress
}

func (t *tailViews) view(id job.ID) tailView {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.views[id]
}

// tell notes that readers are to be told anew of a job, once the batch is committed.
func (t *tx) publishLater(h *runningJob) {
	h.published = true
	t.toPublish = append(t.toPublish, h)
}

// tellAll tells readers what the batch, which is committed, has changed.
func (t *tx) publish() {
	if len(t.toPublish) == 0 {
		return
	}
	t.tailViews.mu.Lock()
	defer t.tailViews.mu.Unlock()
	for _, h := range t.toPublish {
		if t.running[h.job.ID] == h {
			t.tailViews.views[h.job.ID] = h.tailView()
		} else {
			delete(t.tailViews.views, h.job.ID)
		}
	}
}

// tellLoaded tells readers of everything, after an opening or a commit that failed.
func (s *Store) publishLoaded() {
	jobs := map[job.ID]tailView{}
	for id, h := range s.running {
		if len(h.pending) > 0 {
			h.published = true
			jobs[id] = h.tailView()
		}
	}
	s.tailViews.mu.Lock()
	defer s.tailViews.mu.Unlock()
	s.tailViews.views = jobs
}

func (h *runningJob) tailView() tailView {
	return tailView{h.pending, h.job.Cursor, h.job.OutputBytes, h.job.Progress}
}
