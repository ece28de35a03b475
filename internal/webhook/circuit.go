package webhook

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// When a circuit opens, and how long it stays open.
const (
	openAfter   = 5                     // failures in a row
	minOpen     = time.Second           // before the first probe; each failed one doubles it
	maxOpen     = time.Minute           // before a later probe
	maxAskedFor = 5 * time.Minute       // for which a receiver may close its own circuit with Retry-After
	spread      = 20 * time.Millisecond // between deliveries that come back
	maxCircuits = 8192                  // destinations that are remembered
	forgetAfter = 10 * time.Minute      // a destination without attempts
)

// circuits keeps deliveries from destinations that fail: their receiver is down, and each attempt
// would hold a slot until its timeout. After openAfter failures in a row the circuit of a
// destination opens. Then one delivery at a time, the probe, asks it; the others are sent back,
// which costs them no attempt, and come back one after another. An answer closes the circuit.
//
// Only destinations that fail are remembered.
type circuits struct {
	log *slog.Logger // set once

	mu      sync.Mutex
	failing map[string]*circuit // guarded by mu, as are their fields
}

// circuit is a destination that has failed since it last answered.
type circuit struct {
	failures int           // in a row
	usedAt   time.Time     // of the last attempt or the last one sent back
	open     time.Duration // for how long it opens; 0 while it is closed
	probeAt  time.Time     // when the next probe may be made
	probing  bool          // a probe is under way
	sentBack int           // since the last probe
}

func newCircuits(log *slog.Logger) *circuits {
	return &circuits{log: log, failing: map[string]*circuit{}}
}

// permit allows one attempt. One goroutine uses it.
type permit struct {
	circuits    *circuits
	destination string
	probe       bool
	returned    bool
}

// begin returns a permit, or nil and how long to wait.
func (cs *circuits) begin(destination string, now time.Time) (*permit, time.Duration) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	p := &permit{circuits: cs, destination: destination}
	c := cs.failing[destination]
	if c == nil || c.open == 0 {
		return p, 0
	}
	c.usedAt = now
	if !c.probing && !now.Before(c.probeAt) {
		c.probing, p.probe = true, true
		return p, 0
	}
	c.sentBack++
	// Those that come back are as many a second as the server can easily send back again.
	wait := max(c.probeAt.Sub(now), minOpen)
	return nil, wait + rand.N(max(c.open, time.Duration(c.sentBack)*spread))
}

// end returns a permit with the outcome of its attempt.
func (p *permit) end(o *Outcome, now time.Time) {
	p.returned = true
	cs := p.circuits
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.failing[p.destination]
	if !o.isDown() {
		if c != nil {
			delete(cs.failing, p.destination)
			if c.open > 0 {
				cs.log.Info("a receiver of callbacks answers again", "receiver", p.destination)
			}
		}
		return
	}
	if c == nil {
		cs.tidyLocked(now)
		c = &circuit{}
		cs.failing[p.destination] = c
	}
	c.failures++
	c.usedAt = now
	askedFor := min(o.RetryAfter, maxAskedFor)
	switch {
	case p.probe:
		c.probing, c.sentBack = false, 0
		c.open = min(2*c.open, maxOpen)
	case c.open == 0 && (c.failures >= openAfter || askedFor > 0):
		c.open = minOpen
		cs.log.Warn("a receiver of callbacks fails, and its deliveries wait", "receiver", p.destination, "code", o.Code, "status", o.Status)
	default:
		return // it failed while the circuit was closed, or began before it opened
	}
	c.probeAt = now.Add(max(c.open, askedFor))
}

// release returns a permit whose attempt says nothing about its destination. It does nothing after
// end.
func (p *permit) release() {
	if p.returned || !p.probe {
		return
	}
	p.circuits.mu.Lock()
	defer p.circuits.mu.Unlock()
	if c := p.circuits.failing[p.destination]; c != nil {
		c.probing = false
	}
}

func (cs *circuits) countOpen() (n int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, c := range cs.failing {
		if c.open > 0 {
			n++
		}
	}
	return n
}

// tidyLocked makes room for one more destination.
func (cs *circuits) tidyLocked(now time.Time) {
	if len(cs.failing) < maxCircuits {
		return
	}
	for destination, c := range cs.failing {
		if now.Sub(c.usedAt) > forgetAfter {
			delete(cs.failing, destination)
		}
	}
	for destination := range cs.failing {
		if len(cs.failing) < maxCircuits {
			return
		}
		delete(cs.failing, destination) // it opens again after some failures
	}
}

// tenantSlots counts the attempts of each tenant.
type tenantSlots struct {
	limit int // 0 for none; set once

	mu    sync.Mutex
	taken map[string]int // guarded by mu
}

func newTenantSlots(limit int) *tenantSlots {
	return &tenantSlots{limit: limit, taken: map[string]int{}}
}

func (s *tenantSlots) take(tenant string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit > 0 && s.taken[tenant] >= s.limit {
		return false
	}
	s.taken[tenant]++
	return true
}

func (s *tenantSlots) release(tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[tenant]--; s.taken[tenant] == 0 {
		delete(s.taken, tenant)
	}
}
