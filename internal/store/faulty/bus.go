package faulty

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
)

// Notices is a bus that breaks on purpose: notices come late, twice or never. Its fields
// are set before anyone joins.
type Notices struct {
	Bus bus.Bus
	// Lost, Doubled and Late are how many of a hundred notices that arrive are lost,
	// come twice, or come up to MostLate later.
	Lost, Doubled, Late int
	MostLate            time.Duration
	Seed                uint64

	once sync.Once
	mu   sync.Mutex
	dice *rand.Rand // guarded by mu
}

// Join adds a member, whose notices arrive as the bus is set to; see [bus.Bus].
func (n *Notices) Join(wake func(bus.Notice)) bus.Member {
	n.once.Do(func() { n.dice = rand.New(rand.NewPCG(n.Seed, 0)) })
	m := &listener{wake: wake}
	m.Member = n.Bus.Join(func(notice bus.Notice) {
		for _, after := range n.arrivals() {
			m.hear(notice, after)
		}
	})
	return m
}

// arrivals says after how long a notice arrives, each time that it does.
func (n *Notices) arrivals() (after []time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dice.IntN(100) < n.Lost {
		return nil
	}
	times := 1
	if n.dice.IntN(100) < n.Doubled {
		times = 2
	}
	for range times {
		late := time.Duration(0)
		if n.dice.IntN(100) < n.Late {
			late = time.Duration(n.dice.Float64() * float64(n.MostLate))
		}
		after = append(after, late)
	}
	return after
}

// listener is a member with the notices that are still to come to it.
type listener struct {
	bus.Member
	wake func(bus.Notice)

	mu   sync.RWMutex
	left bool // guarded by mu, which a delivery holds for reading
}

func (m *listener) hear(notice bus.Notice, after time.Duration) {
	if after == 0 {
		m.deliver(notice)
		return
	}
	time.AfterFunc(after, func() { m.deliver(notice) })
}

func (m *listener) deliver(notice bus.Notice) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.left {
		m.wake(notice)
	}
}

// Leave ends the membership; see [bus.Member].
func (m *listener) Leave() {
	m.Member.Leave()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = true
}

// Slow is for Plan.Read: reads of a method take as long as told, the others no time.
func Slow(methods map[string]time.Duration) func(method string) error {
	return func(method string) error {
		time.Sleep(methods[method])
		return nil
	}
}
