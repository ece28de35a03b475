package job

import (
	"math"
	"time"
)

// AfterOutput is the rule for an attempt that fails after it has written output.
type AfterOutput string

// The choices of [Retry.AfterOutput].
const (
	RestartAfterOutput AfterOutput = "restart" // try again; the earlier output is superseded
	FailAfterOutput    AfterOutput = "fail"    // keep the output; the job fails
)

// Retry is the retry policy. [Job.MaxAttempts] bounds the failures.
type Retry struct {
	Backoff     time.Duration `json:"backoff,omitempty"`     // before the second attempt; then it doubles
	BackoffMax  time.Duration `json:"backoff_max,omitempty"` // the longest backoff; 0 for no bound
	For         time.Duration `json:"for,omitempty"`         // since the first start; later a [Wait] is final
	OnTimeout   bool          `json:"on_timeout,omitempty"`  // retry an attempt that reached its run timeout
	AfterOutput AfterOutput   `json:"after_output,omitempty"`
	// Delays are the exact waits after the first failures, one for each: no jitter, and no
	// bound by BackoffMax. Later failures, and all failures when there are no Delays, are
	// followed by the backoff of their number.
	Delays []time.Duration `json:"delays,omitempty"`
}

// RetryDecision is what follows a failed attempt. The zero value fails the job.
type RetryDecision struct {
	Retry  bool          // try again; otherwise the job fails
	Delay  time.Duration // before the next attempt
	Refund bool          // the failed attempt is not counted
	Waited bool          // the job fails because it has waited for as long as [Retry.For] allows
}

// DecideRetry decides what follows a fault. hasOutput is whether the attempt wrote output.
// It is a pure function: the caller draws jitter from [0,1).
func (j *Job) DecideRetry(f *Fault, hasOutput bool, now time.Time, jitter float64) RetryDecision {
	r := &j.Policy.Retry
	if hasOutput && r.AfterOutput == FailAfterOutput {
		return RetryDecision{}
	}
	switch f.Class {
	case Wait:
		// The job did not cause the wait, so it costs no attempt. Only the time since the first
		// start ends a job that keeps waiting, as far as the upstream served nobody.
		delay := max(f.RetryAfter, r.backoff(1, jitter))
		servesOthers := 0 < f.ServedAgo && f.ServedAgo <= r.For
		if !servesOthers && now.Add(delay).After(j.StartedAt.Add(r.For)) {
			return RetryDecision{Waited: true}
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

// backoff is the wait after the n-th failure: its entry in Delays, or a backoff that doubles
// with each failure. Jitter adds up to a quarter, so that jobs that failed together do not
// all come back at the same moment.
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
