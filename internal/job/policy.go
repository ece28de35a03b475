package job

import (
	"math"
	"slices"
	"time"
)

// Policy has a job's timeouts, its retry policy and its retention. It is fixed at the submit:
// the queue's policy, with the fields that the submitter set.
type Policy struct {
	Timeouts Timeouts `json:"timeouts"`
	Retry    Retry    `json:"retry"`
	Keep     Keep     `json:"keep"`
}

// Keep is how long an ended job is kept, with everything that belongs to it.
type Keep struct {
	Failed time.Duration `json:"failed"`
	Others time.Duration `json:"others"`
}

// DefaultKeep applies where neither the configuration nor the submit sets another.
var DefaultKeep = Keep{Failed: 7 * 24 * time.Hour, Others: 24 * time.Hour}

// forState is how long a job that ended in this state is kept.
func (k Keep) forState(end State) time.Duration {
	if end == Failed {
		return k.Failed
	}
	return k.Others
}

// RoundUp returns the policy with each duration in whole milliseconds, the resolution of a
// store. It rounds up, so that a clock that is on never becomes 0, which means off.
func (p Policy) RoundUp() Policy {
	for _, d := range p.Timeouts.All() {
		*d = roundUpToMillis(*d)
	}
	r := &p.Retry
	for _, d := range [...]*time.Duration{&r.Backoff, &r.BackoffMax, &r.For, &p.Keep.Failed, &p.Keep.Others} {
		*d = roundUpToMillis(*d)
	}
	r.Delays = slices.Clone(r.Delays) // the slice may belong to the queue's policy
	for i := range r.Delays {
		r.Delays[i] = roundUpToMillis(r.Delays[i])
	}
	return p
}

func roundUpToMillis(d time.Duration) time.Duration {
	if part := d % time.Millisecond; part > 0 {
		d += time.Millisecond - part
	}
	return d
}

// Seconds converts seconds to a duration, rounded to the nanosecond. A positive number never
// becomes the duration 0, which would turn a clock off.
func Seconds(s float64) time.Duration {
	d := time.Duration(math.Round(s * float64(time.Second)))
	if s > 0 {
		return max(d, 1)
	}
	return d
}
