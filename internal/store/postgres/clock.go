package postgres

import (
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// clock estimates the time of the database's clock. Each batch reads that clock, at a moment
// between its question and the answer. So a reading is right to within half of the time that it
// took, which is long when the batch waited for a lock. Between two good readings our own
// monotonic clock goes on, and is wrong by a little more every second.
type clock struct {
	fixed func() time.Time // the clock of a test; nil for that of the database
	local func() time.Time // our own clock, with its monotonic part

	mu sync.Mutex
	// Guarded by mu.
	at      time.Time     // our clock at the best reading; zero before the first
	reading time.Time     // the database's clock at that moment
	bound   time.Duration // the largest error of that reading
	highest time.Time     // the latest time that was answered
}

const (
	// maxDrift is by how much two clocks may differ more after a second.
	maxDrift = 200 * time.Microsecond
	// maxBack is how far the answered time goes back when a better reading says so.
	maxBack = store.ClockTolerance / 2
	// maxStand is how long the answered time stands still to go back no further. If the database's
	// clock was set back by more, it goes back at once: it would be wrong for as long as it stood.
	maxStand = 5 * time.Second
)

func newClock(fixed func() time.Time) *clock { return &clock{fixed: fixed, local: time.Now} }

// now returns the database's time. If that clock was set back, it goes back by maxBack and stands
// still until the clock has caught up, but for no longer than maxStand.
func (c *clock) now() time.Time {
	if c.fixed != nil {
		return c.fixed()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.local()
	if c.at.IsZero() {
		return now
	}
	shown := c.reading.Add(now.Sub(c.at))
	floor := c.highest.Add(-maxBack)
	switch {
	case shown.After(c.highest), floor.Sub(shown) > maxStand:
		c.highest = shown
	case shown.Before(floor):
		return floor
	}
	return shown
}

var readClock = &statement{"read_clock", "select " + clockMicros}

// during adds a reading of the database's clock to a flush, and notes it after run has run that.
func (c *clock) during(f *flush, run func() error) error {
	var reading int64
	f.add(readClock, func(r *record) { reading = r.int() })
	asked := time.Now()
	err := run()
	if err == nil {
		c.note(time.UnixMicro(reading), asked, time.Now())
	}
	return err
}

// note notes a reading of the database's clock, which was asked for at one moment of our clock and
// answered at another. It is used if it is better than the last one is by now, or if it shows that
// the database's clock was set.
func (c *clock) note(reading, asked, answered time.Time) {
	if c.fixed != nil {
		return
	}
	bound := answered.Sub(asked) / 2
	at := asked.Add(bound)
	c.mu.Lock()
	defer c.mu.Unlock()
	age := at.Sub(c.at)
	before := c.bound + time.Duration(age.Seconds()*float64(maxDrift))
	apart := reading.Sub(c.reading.Add(age)).Abs()
	if c.at.IsZero() || bound <= before || apart > bound+before {
		c.at, c.reading, c.bound = at, reading, bound
	}
}
