package engine

import (
	"context"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// removals deletes the files of removed jobs, outside the loop: a large file takes
// its time. What is left when the server stops is found at the next start.
type fileRemover struct {
	remove func([]job.ID)
	wake   chan struct{} // has a value when there is something to do; nobody closes it

	mu   sync.Mutex
	ids  []job.ID      // guarded by mu
	gone chan struct{} // closed by run when nothing is left to delete; nil while nothing is; guarded by mu
}

func newFileRemover(remove func([]job.ID)) *fileRemover {
	return &fileRemover{remove: remove, wake: make(chan struct{}, 1)}
}

// add asks for the files of jobs whose removal is on disk.
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

// wait returns once there was a moment at which nothing was left to delete.
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

// run deletes until ctx ends.
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

// take takes what is to be deleted; when that is nothing, all is gone.
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
