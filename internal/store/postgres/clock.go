package postgres

import (
	"sync"
	"time"
)

// clock estimates the time of the database's clock. The writer reads that clock with every batch.
type clock struct {
	fixed func() time.Time // the clock of a test; nil for that of the database

	mu sync.Mutex
	// Guarded by mu.
	at   time.Time // a moment of our own clock, with its monotonic part
	then time.Time // what the database's clock was at that moment
	lag  time.Duration
}

func newClock(fixed func() time.Time) *clock { return &clock{fixed: fixed} }

func (c *clock) now() time.Time {
	if c.fixed != nil {
		return c.fixed()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return time.Now()
	}
	return c.then.Add(time.Since(c.at))
}

// maxClockAge is how long a reading of the database's clock is used although later ones took a
// longer round trip.
const maxClockAge = 10 * time.Second

// note notes a reading of the database's clock, which was asked at one moment and answered at
// another. The shorter that took, the better is the reading.
func (c *clock) note(reading, asked, answered time.Time) {
	if c.fixed != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	took := answered.Sub(asked)
	if c.at.IsZero() || took <= c.lag || answered.Sub(c.at) > maxClockAge {
		c.at, c.then, c.lag = asked.Add(took/2), reading, took
	}
}
