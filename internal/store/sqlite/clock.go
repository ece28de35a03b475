package sqlite

import (
	"sync"
	"time"
)

const (
	// sleepCheckInterval is how often the kernel is asked how long the machine has slept.
	sleepCheckInterval = 250 * time.Millisecond
	// minSleep is the shortest time that counts as sleep: the measurement has an error.
	minSleep = 100 * time.Millisecond
)

// clock is the wall time of its start plus the time since, including time that the machine
// slept. Go's monotonic clock stops in sleep, which would make delayed jobs late. A jump of the
// wall clock has no effect.
type clock struct {
	// Set once.
	start          time.Time
	wall           time.Time
	sleptSinceBoot func() time.Duration // the function of that name, or a test's

	mu sync.Mutex
	// Guarded by mu.
	sleptAtStart    time.Duration // sleptSinceBoot at the start
	sleptSinceStart time.Duration // sleep since the start
	measuredAt      time.Duration // when sleptSinceBoot was last called, since the start
}

func newClock(slept func() time.Duration) *clock {
	now := time.Now()
	return &clock{start: now, wall: now.Round(0), sleptSinceBoot: slept, sleptAtStart: slept()}
}

func (c *clock) now() time.Time {
	passed := time.Since(c.start)
	c.mu.Lock()
	defer c.mu.Unlock()
	if passed-c.measuredAt >= sleepCheckInterval {
		c.measuredAt = passed
		if sleep := c.sleptSinceBoot() - c.sleptAtStart; sleep >= c.sleptSinceStart+minSleep {
			c.sleptSinceStart = sleep
		}
	}
	return c.wall.Add(passed + c.sleptSinceStart)
}
