package sqlite

import (
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// tailViews are the committed entries of running jobs in the tail, for readers.
type tailViews struct {
	mu    sync.Mutex
	views map[job.ID]tailView // guarded by mu
}

// tailView is the output of a running job that was in the tail at some commit. A read gets the
// view before it reads any row. Entries that left the tail since are then in the log.
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

// publishLater publishes a job's new tail view once the batch is committed.
func (t *tx) publishLater(h *runningJob) {
	h.published = true
	t.toPublish = append(t.toPublish, h)
}

// publish publishes the tail views that the committed batch changed.
func (t *tx) publish() {
	if len(t.toPublish) == 0 {
		return
	}
	t.tailViews.mu.Lock()
	defer t.tailViews.mu.Unlock()
	for _, h := range t.toPublish {
		// The job may have ended, or ended and started again, within the batch.
		if t.running[h.ID] == h {
			t.tailViews.views[h.ID] = h.tailView()
		} else {
			delete(t.tailViews.views, h.ID)
		}
	}
}

// publishLoaded publishes all tail views, after an opening or a failed commit.
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
	return tailView{h.pending, h.Cursor, h.OutputBytes, h.Progress}
}
