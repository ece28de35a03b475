package job

import (
	"fmt"
	"strconv"
	"time"
)

// numClocks is the number of fields in [Timeouts], and of rows in [Clocks].
const numClocks = 9

// Timeouts holds a job's clocks, each described by its row in [Clocks]. Zero turns a
// clock off.
type Timeouts struct {
	Lease       time.Duration
	RunSoft     time.Duration
	RunHard     time.Duration
	Request     time.Duration
	FirstOutput time.Duration
	IdleOutput  time.Duration
	Queue       time.Duration
	CancelGrace time.Duration
	Abandon     time.Duration
}

// All returns pointers to the fields, in the order of [Clocks].
func (t *Timeouts) All() [numClocks]*time.Duration {
	return [...]*time.Duration{
		&t.Lease, &t.RunSoft, &t.RunHard, &t.Request, &t.FirstOutput, &t.IdleOutput, &t.Queue, &t.CancelGrace, &t.Abandon,
	}
}

// Clock describes one clock of a job. The configuration, the jobs API, the command line, the
// OpenAPI document and the pages under docs read it.
type Clock struct {
	Name string // such as "run_hard"; the command line uses this name

	Default time.Duration // unless the queue's executor has another, or the queue sets it

	// Min and Max bound a clock that is on. Only a clock that is not AlwaysOn may be 0.
	Min, Max time.Duration
	AlwaysOn bool

	// SubmitField is the top-level field by which a submit sets the clock; "" for a
	// member of its "timeouts".
	SubmitField string

	Help string // what the clock does: one sentence
}

// Clocks is the table of all clocks. Stores keep the values in this order, so a new
// clock goes to the end.
var Clocks = [numClocks]Clock{
	{
		Name:    "lease",
		Default: 30 * time.Second, Min: time.Second, Max: time.Hour, AlwaysOn: true,
		Help: "A worker that is silent for this long loses its job.",
	},
	{
		Name: "run_soft",
		Max:  MaxDuration,
		Help: "An attempt that has run this long is asked to stop.",
	},
	{
		Name: "run_hard",
		Max:  MaxDuration,
		Help: "An attempt that has run this long is cut off, and its slot is freed.",
	},
	{
		Name: "request",
		Max:  MaxDuration,
		Help: "The longest wait for the headers of an upstream's answer, and for an unstreamed answer as a whole; half as long again with each failed attempt, but no longer than run_soft_s.",
	},
	{
		Name: "first_output",
		Max:  MaxDuration,
		Help: "The longest time from the start of an attempt to its first piece of output; half as long again with each failed attempt, but no longer than run_soft_s.",
	},
	{
		Name: "idle_output",
		Max:  MaxDuration,
		Help: "The longest time between two pieces of output.",
	},
	{
		Name: "queue",
		Max:  MaxDuration,
		Help: "A job that has waited this long for its first attempt expires.",
	},
	{
		Name:    "cancel_grace",
		Default: 10 * time.Second, Min: time.Millisecond, Max: MaxDuration, AlwaysOn: true,
		Help: "Work that goes on this long after a cancel loses its slot.",
	},
	{
		Name: "abandon",
		Min:  MinAbandon, Max: MaxDuration, SubmitField: "abandon_after_s",
		Help: "A job that no client has watched, read or sent a heartbeat for in this long is cancelled.",
	},
}

// Key returns the clock's name where its value is in seconds: in JSON and in the
// configuration file.
func (c *Clock) Key() string { return c.Name + "_s" }

// Allows reports whether the clock may be set to d.
func (c *Clock) Allows(d time.Duration) bool {
	if d == 0 {
		return !c.AlwaysOn
	}
	return c.Min <= d && d <= c.Max
}

// FromSeconds returns s as a duration, and whether the clock may be set to it.
func (c *Clock) FromSeconds(s float64) (time.Duration, bool) {
	if s < 0 || s > c.Max.Seconds() {
		return 0, false // before the conversion, which a larger number overflows
	}
	d := Seconds(s)
	return d, c.Allows(d)
}

// Bounds names the values that the clock allows, such as "1 to 3600 seconds".
func (c *Clock) Bounds() string {
	inSeconds := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
	bounds := fmt.Sprintf("%s to %s seconds", inSeconds(c.Min), inSeconds(c.Max))
	if c.Min > 0 && !c.AlwaysOn {
		bounds += ", or 0 to turn it off"
	}
	return bounds
}

// Overrun reports whether an attempt that began at a time has reached its hard run time.
func (t *Timeouts) Overrun(began, now time.Time) bool {
	return t.RunHard > 0 && !now.Before(began.Add(t.RunHard))
}

// RaiseRequest makes a request clock that is on at least as long as the first-output clock,
// which includes the time of the request. It is for a request clock that nobody has set.
func (t *Timeouts) RaiseRequest() {
	switch {
	case t.Request == 0:
	case t.FirstOutput == 0:
		t.Request = 0
	default:
		t.Request = max(t.Request, t.FirstOutput)
	}
}

// AttemptTimeouts returns the timeouts of the job's current attempt. After each failure the
// upstream gets half as long again to begin, so that a server which is slow to start is not
// given up at the same moment each time. No attempt waits longer than its soft run time.
func (j *Job) AttemptTimeouts() Timeouts {
	t := j.Policy.Timeouts
	for range min(j.Failures()-1, maxGrowths) {
		t.Request, t.FirstOutput = t.grow(t.Request), t.grow(t.FirstOutput)
	}
	return t
}

// maxGrowths bounds how often a clock grows. 1.5 to this power is more than a million.
const maxGrowths = 35

// grow returns a clock half as long again, bounded by the soft run time.
func (t *Timeouts) grow(d time.Duration) time.Duration {
	limit := MaxDuration
	if t.RunSoft > 0 {
		limit = max(t.RunSoft, d) // a longer clock stays as it is
	}
	return min(d+d/2, limit)
}

// CancelOverdue reports whether the job was asked to stop longer ago than its cancel grace.
func (j *Job) CancelOverdue(now time.Time) bool {
	at := j.CancelRequestedAt
	return !at.IsZero() && !at.Add(j.Policy.Timeouts.CancelGrace).After(now)
}

// Silent reports whether an attempt has been without output for too long. lastOutput is the
// time of its last output, zero before the first one.
func (t *Timeouts) Silent(began, lastOutput, now time.Time) bool {
	if lastOutput.IsZero() {
		return t.FirstOutput > 0 && !now.Before(began.Add(t.FirstOutput))
	}
	return t.IdleOutput > 0 && !now.Before(lastOutput.Add(t.IdleOutput))
}
