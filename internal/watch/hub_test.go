package watch_test

import (
	"bytes"
	"sync"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

func textEvent(seq int64, size int) watch.Event {
	return watch.Event{Entries: []job.Entry{{Seq: seq, Kind: job.KindText, Data: bytes.Repeat([]byte("x"), size)}}}
}

// A watcher receives the events of its own job only, in order.
func TestPublishReachesItsWatchers(t *testing.T) {
	t.Parallel()
	h := watch.NewHub()
	mine, other := job.NewID(), job.NewID()
	sub := h.Subscribe(job.Owner{}, mine)
	defer sub.Close()
	h.Publish(mine, textEvent(1, 1))
	h.Publish(other, textEvent(7, 1))
	h.Publish(mine, textEvent(2, 1))
	<-sub.Ready
	events, missed := sub.Take()
	if missed || len(events) != 2 || events[0].Entries[0].Seq != 1 || events[1].Entries[0].Seq != 2 {
		t.Fatalf("events %v, missed %v", events, missed)
	}
	if again, _ := sub.Take(); len(again) != 0 {
		t.Fatal("an event was returned twice")
	}
}

// If a watcher does not call Take, its events are dropped, and Take reports that.
func TestSlowWatcherMissesEvents(t *testing.T) {
	t.Parallel()
	h := watch.NewHub()
	id := job.NewID()
	slow, quick := h.Subscribe(job.Owner{}, id), h.Subscribe(job.Owner{}, id)
	defer slow.Close()
	defer quick.Close()
	for seq := range int64(10) {
		h.Publish(id, textEvent(seq+1, 64<<10))
		<-quick.Ready
		if events, missed := quick.Take(); missed || len(events) != 1 {
			t.Fatal("the slow watcher made the quick one miss events")
		}
	}
	if events, missed := slow.Take(); !missed || len(events) != 0 {
		t.Fatalf("640 KiB are unread and %d events kept; missed %v", len(events), missed)
	}
	h.Publish(id, textEvent(11, 1))
	if events, missed := slow.Take(); missed || len(events) != 1 {
		t.Fatal("the watcher does not get the events after the ones that it missed")
	}
}

// Watchers subscribe and leave while events are published. In the end no subscription is left.
func TestConcurrentSubscriptionsAreRemoved(t *testing.T) {
	t.Parallel()
	h := watch.NewHub()
	id := job.NewID()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				sub := h.Subscribe(job.Owner{}, id)
				h.Publish(id, textEvent(1, 10))
				<-sub.Ready
				sub.Close()
			}
		})
	}
	all.Wait()
	if n := h.Watchers(); n != 0 {
		t.Fatalf("%d watchers are left", n)
	}
}
