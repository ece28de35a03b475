package engine

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// However many watchers come at the same time, no more than MaxWatchers stay.
func TestConcurrentWatchersKeepLimit(t *testing.T) {
	t.Parallel()
	const limit = 8
	e := &Engine{hub: watch.NewHub(), maxWatchers: limit}
	for range 300 {
		var stay atomic.Int64
		var all sync.WaitGroup
		subs, begin := make(chan *watch.Subscription, 64), make(chan struct{})
		for range cap(subs) {
			all.Go(func() {
				<-begin
				if sub, err := e.subscribe(job.ID{}); err == nil {
					stay.Add(1)
					subs <- sub
				}
			})
		}
		close(begin)
		all.Wait()
		if stay.Load() > limit {
			t.Fatalf("%d watchers stay, want at most %d", stay.Load(), limit)
		}
		close(subs)
		for sub := range subs {
			sub.Close()
		}
	}
}
