package sqlite

import (
	"sync"
	"time"
)

const (
	// askEvery is how often the kernel is asked how long the machine has slept.
	askEvery = 250 * time.Millisecond
	// shortestSleep is what counts as sleep: the question has an error of its own.
	shortestSleep = 100 * time.Millisecond
)

// clock is the wall time of its start and what has passed since, with the time that the
// machine slept: Go's monotonic clock stands still meanwhile, and delayed jobs would be
// late by as much. A jump of the wall clock moves nothing.
type clock struct {
	// Set once.
	start time.Time
	wall  time.Time
	slept func() time.Duration // since the machine was started

	mu sync.Mutex
	// Guarded by mu.
	before time.Duration // what the machine had slept at the start
	sleep  time.Duration // since the start
	asked  time.Duration // when slept was last called, after the start
}

func newClock(slept func() time.Duration) *clock {
	now := time.Now()
	return &clock{start: now, wall: now.Round(0), slept: slept, before: slept()}
}

func (c *clock) now() time.Time {
	passed := time.Since(c.start)
	c.mu.Lock()
	defer c.mu.Unlock()
	if passed-c.asked >= askEvery {
		c.asked = passed
		if sleep := c.slept() - c.before; sleep >= c.sleep+shortestSleep {
			c.sleep = sleep
		}
	}
	return c.wall.Add(passed + c.sleep)
}
