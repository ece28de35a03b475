package runner

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// clocks measure how long an attempt takes. They are read when the attempt's timer fires, so
// output only stores the time and resets no timer.
type clocks struct {
	limits     *job.Timeouts // set once
	startedAt  time.Time     // when the attempt started, or the last call of ResetTimeouts
	lastOutput time.Time     // when the last output or sign of life came; zero before the first
	blocked    bool          // the executor waits for the disk, so it does not count as silent
}

// clock names one of the limits.
type clock uint8

const (
	runHard clock = iota
	runSoft
	firstOutput
	idleOutput
)

// enabled reports whether the job sets any limit.
func (c *clocks) enabled() bool {
	l := c.limits
	return l.RunHard > 0 || l.RunSoft > 0 || l.FirstOutput > 0 || l.IdleOutput > 0
}

// nextExpiry returns the clock that expires first and its time; at is zero if no clock runs. If
// two expire together, it returns the stricter one.
func (c *clocks) nextExpiry(now time.Time) (which clock, at time.Time) {
	consider := func(k clock, from time.Time, limit time.Duration) {
		if end := from.Add(limit); limit > 0 && (at.IsZero() || end.Before(at)) {
			which, at = k, end
		}
	}
	consider(runHard, c.startedAt, c.limits.RunHard)
	consider(runSoft, c.startedAt, c.limits.RunSoft)
	switch {
	case c.blocked:
		// The executor waits for the disk, so it is not silent. Check again after another idle
		// limit.
		consider(idleOutput, now, c.limits.IdleOutput)
	case c.lastOutput.IsZero():
		consider(firstOutput, c.startedAt, c.limits.FirstOutput)
	default:
		consider(idleOutput, c.lastOutput, c.limits.IdleOutput)
	}
	return which, at
}

// grace returns how long the executor may take to stop after a clock has expired. With a hard
// limit it never exceeds the time until that limit, and for runSoft it is exactly that time.
// Otherwise it is the grace of a cancel.
func (c *clocks) grace(which clock, now time.Time, cancelGrace time.Duration) time.Duration {
	if c.limits.RunHard == 0 {
		return cancelGrace
	}
	left := max(0, c.startedAt.Add(c.limits.RunHard).Sub(now))
	if which == runSoft || which == runHard {
		return left
	}
	return min(left, cancelGrace)
}
