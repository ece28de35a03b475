package engine

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// No more than MaxWatchers watchers are accepted, even if many come at the same time.
func TestConcurrentWatchersKeepLimit(t *testing.T) {
	t.Parallel()
	const limit = 8
	e := &Engine{hub: watch.NewHub(), maxWatchers: limit}
	for range 300 {
		var accepted atomic.Int64
		var all sync.WaitGroup
		subs, begin := make(chan *watch.Subscription, 64), make(chan struct{})
		for range cap(subs) {
			all.Go(func() {
				<-begin
				if sub, err := e.subscribe(job.Owner{}, job.ID{}); err == nil {
					accepted.Add(1)
					subs <- sub
				}
			})
		}
		close(begin)
		all.Wait()
		if accepted.Load() > limit {
			t.Fatalf("%d watchers were accepted, want at most %d", accepted.Load(), limit)
		}
		close(subs)
		for sub := range subs {
			sub.Close()
		}
	}
}
