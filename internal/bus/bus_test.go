package bus_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A notice reaches every member but its sender.
func TestPublishReachesOtherMembers(t *testing.T) {
	t.Parallel()
	var b bus.Local
	var got [3][]bus.Notice
	var members [3]bus.Member
	for i := range members {
		members[i] = b.Join(func(n bus.Notice) { got[i] = append(got[i], n) })
	}
	id := job.NewID()
	members[1].Publish(bus.Notice{Jobs: []job.ID{id}, Queues: []string{"q"}})
	for i := range got {
		switch {
		case i == 1 && len(got[i]) > 0:
			t.Error("a member was woken by its own notice")
		case i != 1 && (len(got[i]) != 1 || got[i][0].Jobs[0] != id || !slices.Equal(got[i][0].Queues, []string{"q"})):
			t.Errorf("member %d got %v", i, got[i])
		}
	}
}

// After Leave has returned, wake is not called, although others keep publishing.
func TestLeaveStopsWake(t *testing.T) {
	t.Parallel()
	var b bus.Local
	sender := b.Join(func(bus.Notice) {})
	var left sync.Map
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { sender.Publish(bus.Notice{Queues: []string{"q"}}) })
		all.Go(func() {
			m := b.Join(func(bus.Notice) {
				if _, gone := left.Load(i); gone {
					t.Error("a member that has left was woken")
				}
			})
			m.Leave()
			left.Store(i, true)
		})
	}
	all.Wait()
}
