package sqlite

import (
	"sync"
	"time"
)

const (
	// askEvery is how often the kernel is asked how long the machine has slept.
	sleepCheckInterval = 250 * time.Millisecond
	// shortestSleep is what counts as sleep: the question has an error of its own.
	minSleep = 100 * time.Millisecond
)

// clock is the wall time of its start and what has passed since, with the time that the
// machine slept: Go's monotonic clock stands still meanwhile, and delayed jobs would be
// late by as much. A jump of the wall clock moves nothing.
type clock struct {
	// Set once.
	start          time.Time
	wall           time.Time
	sleptSinceBoot func() time.Duration // since the machine was started

	mu sync.Mutex
	// Guarded by mu.
	sleptAtStart    time.Duration // what the machine had slept at the start
	sleptSinceStart time.Duration // since the start
	askedAt         time.Duration // when slept was last called, after the start
}

func newClock(slept func() time.Duration) *clock {
	now := time.Now()
	return &clock{start: now, wall: now.Round(0), sleptSinceBoot: slept, sleptAtStart: slept()}
}

func (c *clock) now() time.Time {
	passed := time.Since(c.start)
	c.mu.Lock()
	defer c.mu.Unlock()
	if passed-c.askedAt >= sleepCheckInterval {
		c.askedAt = passed
		if sleep := c.sleptSinceBoot() - c.sleptAtStart; sleep >= c.sleptSinceStart+minSleep {
			c.sleptSinceStart = sleep
		}
	}
	return c.wall.Add(passed + c.sleptSinceStart)
}
