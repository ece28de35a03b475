// Package bus carries wake-ups between processes that share a store. A notice names the jobs and
// queues that changed; the receiver reads the change itself from the store. Notices may be lost,
// late, repeated or out of order. So every member also reads the store once a second, and a lost
// notice causes only a delay of a second.
package bus

import (
	"slices"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Notice names the jobs and queues that a commit of one process has changed.
type Notice struct {
	// Jobs are the jobs whose state or output changed.
	Jobs []job.ID
	// Queues are the queues whose counts or pause changed. [AccessNotice] has a name here that no
	// queue can have, so that an older version understands it too.
	Queues []string
}

const accessChanged = "~access"

// AccessNotice says that keys or tenants have changed.
func AccessNotice() Notice { return Notice{Queues: []string{accessChanged}} }

// Access reports whether the notice says that keys or tenants have changed.
func (n *Notice) Access() bool { return slices.Contains(n.Queues, accessChanged) }

// Empty reports whether the notice names nothing.
func (n *Notice) Empty() bool { return len(n.Jobs) == 0 && len(n.Queues) == 0 }

// Bus connects the processes of one store. Any goroutine may call its methods.
type Bus interface {
	// Join makes the caller a member. The bus calls wake with each notice of another member that
	// arrives, never with the member's own. It may call wake from any goroutine, from several at
	// once, and during a Publish of another member. So wake must return at once, and must not
	// call the bus. It may keep the notice but must not change it.
	Join(wake func(Notice)) Member
}

// Member is one process on the bus.
type Member interface {
	// Publish sends a notice to the other members. It never blocks, and does not report
	// whether the notice arrives. The caller must not change the notice afterwards.
	Publish(Notice)
	// Leave ends the membership. It waits for a running call of wake; after it has returned,
	// wake is never called again. It must not be called from wake.
	Leave()
}

// Local is a bus within one process, for engines in one program or test that share a store. It
// loses no notice. The zero value is ready to use.
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
	// A read lock, because members publish at the same time and Leave waits for all of them.
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
