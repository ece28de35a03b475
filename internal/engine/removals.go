package engine

import (
	"context"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// removals deletes the files of removed jobs, outside the loop: a large file takes
// its time. What is left when the server stops is found at the next start.
type removals struct {
	remove func([]job.ID)
	wake   chan struct{} // has a value when there is something to do; nobody closes it

	mu  sync.Mutex
	ids []job.ID // guarded by mu
}

func newRemovals(remove func([]job.ID)) *removals {
	return &removals{remove: remove, wake: make(chan struct{}, 1)}
}

// add asks for the files of jobs whose removal is on disk.
func (r *removals) add(ids []job.ID) {
	if len(ids) == 0 || r.remove == nil {
		return
	}
	r.mu.Lock()
	r.ids = append(r.ids, ids...)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run deletes until ctx ends.
func (r *removals) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		r.mu.Lock()
		ids := r.ids
		r.ids = nil
		r.mu.Unlock()
		if len(ids) > 0 {
			r.remove(ids)
		}
	}
}
