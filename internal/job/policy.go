package job

import (
	"math"
	"slices"
	"time"
)

// Policy is how patient a job is: its clocks and its retries. It is fixed when the
// job is submitted: the queue's policy, with what the submitter set on top.
type Policy struct {
	Timeouts Timeouts `json:"timeouts"`
	Retry    Retry    `json:"retry"`
	Keep     Keep     `json:"keep"`
}

// Keep is for how long an ended job is kept, with all it left.
type Keep struct {
	Failed time.Duration `json:"failed"`
	Others time.Duration `json:"others"`
}

// DefaultKeep is what holds where nobody said otherwise.
var DefaultKeep = Keep{Failed: 7 * 24 * time.Hour, Others: 24 * time.Hour}

// after is for how long a job is kept that ended so.
func (k Keep) after(end State) time.Duration {
	if end == Failed {
		return k.Failed
	}
	return k.Others
}

// Whole is the policy with each of its durations in whole milliseconds, which is what
// a store keeps. They are rounded up: a clock that is on never becomes one that is off.
func (p Policy) Whole() Policy {
	for _, d := range p.Timeouts.All() {
		*d = wholeMillis(*d)
	}
	r := &p.Retry
	for _, d := range [...]*time.Duration{&r.Backoff, &r.BackoffMax, &r.For, &p.Keep.Failed, &p.Keep.Others} {
		*d = wholeMillis(*d)
	}
	r.Delays = slices.Clone(r.Delays) // the caller's policy may be its queue's
	for i := range r.Delays {
		r.Delays[i] = wholeMillis(r.Delays[i])
	}
	return p
}

func wholeMillis(d time.Duration) time.Duration {
	if part := d % time.Millisecond; part > 0 {
		d += time.Millisecond - part
	}
	return d
}

// Seconds is a number of seconds as a duration, rounded to the nanosecond. A positive
// number is never the duration 0, which would turn a clock off.
func Seconds(s float64) time.Duration {
	d := time.Duration(math.Round(s * float64(time.Second)))
	if s > 0 {
		return max(d, 1)
	}
	return d
}

// AfterOutput says what follows when an attempt fails that has already spoken.
type AfterOutput string

// The choices of [Retry.AfterOutput].
const (
	RestartAfterOutput AfterOutput = "restart" // try again; what was said is superseded
	FailAfterOutput    AfterOutput = "fail"    // keep what was said; the job fails
)

// Retry is the retry policy. Failures themselves are bounded by [Job.MaxAttempts].
type Retry struct {
	Backoff     time.Duration `json:"backoff,omitempty"`     // before the second attempt; doubled for each one after
	BackoffMax  time.Duration `json:"backoff_max,omitempty"` // a backoff grows no longer than this
	For         time.Duration `json:"for,omitempty"`         // how long, from the first start, being told to wait is put up with
	OnTimeout   bool          `json:"on_timeout,omitempty"`  // a run that reached its time may be tried again
	AfterOutput AfterOutput   `json:"after_output,omitempty"`
	// Delays are the waits after the first failures, one for each, without jitter and
	// without regard to BackoffMax. The failures after them wait for the backoff of their
	// number, as all do when there are no Delays.
	Delays []time.Duration `json:"delays,omitempty"`
}

// RetryDecision is what follows a failed attempt.
type RetryDecision struct {
	Retry  bool          // false: the job fails
	Delay  time.Duration // before the next attempt, when Again
	Refund bool          // the attempt is not counted, when Again
}

// DecideRetry decides what follows a fault. It is a pure function: jitter, in [0,1), is
// the caller's die.
func (j *Job) DecideRetry(f *Fault, spoke bool, now time.Time, jitter float64) RetryDecision {
	r := &j.Policy.Retry
	if spoke && r.AfterOutput == FailAfterOutput {
		return RetryDecision{}
	}
	switch f.Class {
	case Wait:
		delay := max(f.RetryAfter, r.backoff(1, jitter))
		if now.Add(delay).After(j.StartedAt.Add(r.For)) {
			return RetryDecision{}
		}
		return RetryDecision{Retry: true, Delay: delay, Refund: true}
	case Retryable:
	case Timeout:
		if !r.OnTimeout {
			return RetryDecision{}
		}
	default:
		return RetryDecision{}
	}
	if j.Failures() >= j.MaxAttempts {
		return RetryDecision{}
	}
	return RetryDecision{Retry: true, Delay: max(f.RetryAfter, r.backoff(j.Failures(), jitter))}
}

// backoff is the wait after the failure of that number: its delay, or else doubled each
// time, and spread by a quarter so that jobs which failed together do not come back
// together.
func (r *Retry) backoff(failure int, jitter float64) time.Duration {
	if failure <= len(r.Delays) {
		return r.Delays[max(failure, 1)-1]
	}
	d := float64(r.Backoff) * math.Pow(2, float64(max(failure, 1)-1))
	if r.BackoffMax > 0 {
		d = min(d, float64(r.BackoffMax))
	}
	return time.Duration(d * (1 + jitter/4))
}
