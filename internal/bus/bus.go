// Package bus carries wake-ups between processes that share a store. A notice says where
// to look; it is never the news itself. Notices may be lost, late, repeated or out of
// order. Every member therefore also reads the store once a second, so that a lost notice
// costs a second and nothing else.
package bus

import (
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Notice names what a process has committed.
type Notice struct {
	// Jobs are those whose state or output changed.
	Jobs []job.ID
	// Queues are those whose counts, or whose pause, changed.
	Queues []string
}

// Empty says that the notice names nothing.
func (n *Notice) Empty() bool { return len(n.Jobs) == 0 && len(n.Queues) == 0 }

// Bus connects the processes of one store. Its methods may be called by any goroutine.
type Bus interface {
	// Join makes the caller a member. wake is called with the notices of the other
	// members, by any goroutine, and must return at once. It may keep the notice but not change it.
	Join(wake func(Notice)) Member
}

// Member is one process on the bus.
type Member interface {
	// Publish sends a notice to the other members. It never blocks, and does not
	// say whether the notice arrived. The caller no longer changes the notice.
	Publish(Notice)
	// Leave ends the membership: when it has returned, wake is not called any more.
	Leave()
}

// Local is a bus within one process: for engines that share a store in tests, or in a
// program that opens several. The zero value is ready.
type Local struct {
	mu      sync.RWMutex
	members map[*localMember]bool // guarded by mu
}

type localMember struct {
	bus  *Local
	wake func(Notice)
}

// Join adds a member; see [Bus].
func (b *Local) Join(wake func(Notice)) Member {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.members == nil {
		b.members = map[*localMember]bool{}
	}
	m := &localMember{bus: b, wake: wake}
	b.members[m] = true
	return m
}

// Publish wakes the other members; see [Member].
func (m *localMember) Publish(n Notice) {
	m.bus.mu.RLock()
	defer m.bus.mu.RUnlock()
	for other := range m.bus.members {
		if other != m {
			other.wake(n)
		}
	}
}

// Leave removes the member; see [Member].
func (m *localMember) Leave() {
	m.bus.mu.Lock()
	defer m.bus.mu.Unlock()
	delete(m.bus.members, m)
}
