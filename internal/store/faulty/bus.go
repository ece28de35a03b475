package faulty

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
)

// Bus is a bus that fails on purpose: notices arrive late, twice or never. Its fields must be set
// before the first Join.
type Bus struct {
	Inner bus.Bus
	// LostPercent, DoubledPercent and LatePercent are the percentages of notices that are lost,
	// that arrive twice, and that arrive up to MaxDelay later.
	LostPercent, DoubledPercent, LatePercent int
	MaxDelay                                 time.Duration
	Seed                                     uint64

	once   sync.Once
	mu     sync.Mutex
	random *rand.Rand // guarded by mu
}

// Join adds a member; see [bus.Bus].
func (n *Bus) Join(wake func(bus.Notice)) bus.Member {
	n.once.Do(func() { n.random = rand.New(rand.NewPCG(n.Seed, 0)) })
	m := &member{wake: wake}
	m.Member = n.Inner.Join(func(notice bus.Notice) {
		for _, after := range n.arrivals() {
			m.schedule(notice, after)
		}
	})
	return m
}

// arrivals returns the delay of each arrival of a notice: none, one or two.
func (n *Bus) arrivals() (after []time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.random.IntN(100) < n.LostPercent {
		return nil
	}
	times := 1
	if n.random.IntN(100) < n.DoubledPercent {
		times = 2
	}
	for range times {
		late := time.Duration(0)
		if n.random.IntN(100) < n.LatePercent {
			late = time.Duration(n.random.Float64() * float64(n.MaxDelay))
		}
		after = append(after, late)
	}
	return after
}

// member delivers its notices after their delays, until it leaves.
type member struct {
	bus.Member
	wake func(bus.Notice)

	mu   sync.RWMutex
	left bool // guarded by mu, which a delivery locks for reading
}

func (m *member) schedule(notice bus.Notice, after time.Duration) {
	if after == 0 {
		m.deliver(notice)
		return
	}
	time.AfterFunc(after, func() { m.deliver(notice) })
}

func (m *member) deliver(notice bus.Notice) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.left {
		m.wake(notice)
	}
}

// Leave ends the membership; see [bus.Member].
func (m *member) Leave() {
	m.Member.Leave()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = true
}

// SlowReads is a [Plan.Read] that delays the reads of some methods.
func SlowReads(methods map[string]time.Duration) func(method string) error {
	return func(method string) error {
		time.Sleep(methods[method])
		return nil
	}
}
