package engine

import (
	"context"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// fileRemover deletes the files of deleted jobs, outside the loop because large files take time.
// Files that are left when the server stops are found at the next start.
type fileRemover struct {
	remove func([]job.ID)
	wake   chan struct{} // has a value when there are files to delete; never closed

	mu   sync.Mutex
	ids  []job.ID      // guarded by mu
	gone chan struct{} // closed by run once all is deleted; nil while no file waits; guarded by mu
}

func newFileRemover(remove func([]job.ID)) *fileRemover {
	return &fileRemover{remove: remove, wake: make(chan struct{}, 1)}
}

// add queues the files of jobs whose deletion is on disk.
func (r *fileRemover) add(ids []job.ID) {
	if len(ids) == 0 || r.remove == nil {
		return
	}
	r.mu.Lock()
	r.ids = append(r.ids, ids...)
	if r.gone == nil {
		r.gone = make(chan struct{})
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// wait returns when all files that were queued before the call are deleted.
func (r *fileRemover) wait(ctx context.Context) error {
	r.mu.Lock()
	gone := r.gone
	r.mu.Unlock()
	if gone == nil {
		return nil
	}
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run deletes files until ctx ends.
func (r *fileRemover) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for ids := r.take(); len(ids) > 0; ids = r.take() {
			r.remove(ids)
		}
	}
}

// take removes and returns the queued ids. If there are none, it wakes the callers of wait.
func (r *fileRemover) take() []job.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := r.ids
	r.ids = nil
	if len(ids) == 0 && r.gone != nil {
		close(r.gone)
		r.gone = nil
	}
	return ids
}
