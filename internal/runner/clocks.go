package runner

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// clocks say when an attempt has taken too long. They are looked at when the
// attempt's timer rings, so that a piece of output costs a note of the time and no
// timer.
type clocks struct {
	limits *job.Timeouts // set once
	begun  time.Time     // when the attempt, or its wait for something scarce, was over
	last   time.Time     // of the last piece; zero before the first
	held   bool          // the executor waits for the disk: silence is not its fault
}

// clock is one of the clocks.
type clock uint8

const (
	runHard clock = iota
	runSoft
	firstOutput
	idleOutput
)

// set says whether there is any clock to look at.
func (c *clocks) set() bool {
	l := c.limits
	return l.RunHard > 0 || l.RunSoft > 0 || l.FirstOutput > 0 || l.IdleOutput > 0
}

// start starts the clocks, or starts them again.
func (c *clocks) start(now time.Time) {
	c.begun, c.last = now, time.Time{}
}

// nearest is the clock that runs out first, and when; a zero time when none will.
// When two run out together the stricter one counts.
func (c *clocks) nearest(now time.Time) (which clock, at time.Time) {
	consider := func(k clock, from time.Time, limit time.Duration) {
		if end := from.Add(limit); limit > 0 && (at.IsZero() || end.Before(at)) {
			which, at = k, end
		}
	}
	consider(runHard, c.begun, c.limits.RunHard)
	consider(runSoft, c.begun, c.limits.RunSoft)
	switch {
	case c.held:
		consider(idleOutput, now, c.limits.IdleOutput)
	case c.last.IsZero():
		consider(firstOutput, c.begun, c.limits.FirstOutput)
	default:
		consider(idleOutput, c.last, c.limits.IdleOutput)
	}
	return which, at
}

// grace is how long the executor may take to stop after a clock has run out: until
// the hard limit where there is one, else the grace of a cancel.
func (c *clocks) grace(which clock, now time.Time, usual time.Duration) time.Duration {
	if c.limits.RunHard == 0 {
		return usual
	}
	left := max(0, c.begun.Add(c.limits.RunHard).Sub(now))
	if which == runSoft || which == runHard {
		return left
	}
	return min(left, usual)
}
