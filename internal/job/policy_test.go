package job_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func attempt(n int, retry job.Retry) *job.Job {
	return &job.Job{Attempt: n, MaxAttempts: 4, StartedAt: time.Unix(1000, 0), Policy: job.Policy{Retry: retry}}
}

// What follows a fault depends on its class, the attempts left and the policy.
func TestDecideRetry(t *testing.T) {
	t.Parallel()
	standard := job.Retry{Backoff: 2 * time.Second, For: time.Minute, AfterOutput: job.RestartAfterOutput}
	onTimeout, failAfter := standard, standard
	onTimeout.OnTimeout, failAfter.AfterOutput = true, job.FailAfterOutput
	now := time.Unix(1010, 0) // ten seconds after the start
	for name, c := range map[string]struct {
		job       *job.Job
		fault     job.Fault
		hasOutput bool
		want      job.RetryDecision
	}{
		"a final fault fails the job":          {attempt(1, standard), job.Fault{Class: job.Final}, false, job.RetryDecision{}},
		"a retryable fault backs off":          {attempt(1, standard), job.Fault{Class: job.Retryable}, false, job.RetryDecision{Retry: true, Delay: 2 * time.Second}},
		"each backoff doubles":                 {attempt(3, standard), job.Fault{Class: job.Retryable}, false, job.RetryDecision{Retry: true, Delay: 8 * time.Second}},
		"the last attempt fails the job":       {attempt(4, standard), job.Fault{Class: job.Retryable}, false, job.RetryDecision{}},
		"a longer wait is kept":                {attempt(1, standard), job.Fault{Class: job.Retryable, RetryAfter: time.Minute}, false, job.RetryDecision{Retry: true, Delay: time.Minute}},
		"a wait is refunded":                   {attempt(4, standard), job.Fault{Class: job.Wait, RetryAfter: 5 * time.Second}, false, job.RetryDecision{Retry: true, Delay: 5 * time.Second, Refund: true}},
		"a wait past For is final":             {attempt(1, standard), job.Fault{Class: job.Wait, RetryAfter: 51 * time.Second}, false, job.RetryDecision{Waited: true}},
		"a timeout is final":                   {attempt(1, standard), job.Fault{Class: job.Timeout}, false, job.RetryDecision{}},
		"a timeout with OnTimeout":             {attempt(1, onTimeout), job.Fault{Class: job.Timeout}, false, job.RetryDecision{Retry: true, Delay: 2 * time.Second}},
		"an attempt with output is retried":    {attempt(1, standard), job.Fault{Class: job.Retryable}, true, job.RetryDecision{Retry: true, Delay: 2 * time.Second}},
		"output fails the job":                 {attempt(1, failAfter), job.Fault{Class: job.Retryable}, true, job.RetryDecision{}},
		"an attempt without output is retried": {attempt(1, failAfter), job.Fault{Class: job.Retryable}, false, job.RetryDecision{Retry: true, Delay: 2 * time.Second}},
	} {
		if got := c.job.DecideRetry(&c.fault, c.hasOutput, now, 0); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// Jitter only lengthens a backoff, by a quarter at most. BackoffMax applies before the jitter.
func TestBackoffIsBounded(t *testing.T) {
	t.Parallel()
	j := attempt(1, job.Retry{Backoff: time.Second, BackoffMax: 3 * time.Second})
	j.MaxAttempts = 100
	for n := 1; n < 90; n++ {
		j.Attempt = n
		shortest := j.DecideRetry(&job.Fault{Class: job.Retryable}, false, time.Now(), 0).Delay
		longest := j.DecideRetry(&job.Fault{Class: job.Retryable}, false, time.Now(), 0.999).Delay
		if shortest < time.Second || shortest > 3*time.Second || longest < shortest || longest > shortest*5/4 {
			t.Fatalf("the backoff after attempt %d is %s to %s", n, shortest, longest)
		}
	}
}

// The nth failure waits for the nth delay exactly, and the doubling goes on after the last one.
func TestDelaysComeBeforeBackoff(t *testing.T) {
	t.Parallel()
	retry := job.Retry{
		Backoff: time.Second, BackoffMax: 10 * time.Second, For: time.Hour,
		Delays: []time.Duration{5 * time.Second, 0, 2 * time.Minute},
	}
	for failure, want := range map[int]time.Duration{1: 5 * time.Second, 2: 0, 3: 2 * time.Minute, 4: 8 * time.Second, 5: 10 * time.Second} {
		j := attempt(failure+2, retry)
		j.MaxAttempts, j.Losses = 6, 2 // losses are not failures
		shortest := j.DecideRetry(&job.Fault{Class: job.Retryable}, false, time.Now(), 0)
		longest := j.DecideRetry(&job.Fault{Class: job.Retryable}, false, time.Now(), 0.999)
		if !shortest.Retry || shortest.Delay != want || failure <= 3 && longest != shortest {
			t.Errorf("failure %d is followed by %+v to %+v, want a delay of %s", failure, shortest, longest, want)
		}
		waited := j.DecideRetry(&job.Fault{Class: job.Retryable, RetryAfter: time.Hour}, false, time.Now(), 0)
		if waited.Delay != time.Hour {
			t.Errorf("failure %d, after a wait of an hour was asked for, waits for %s", failure, waited.Delay)
		}
	}
	last := attempt(2, retry)
	last.MaxAttempts = 2
	if v := last.DecideRetry(&job.Fault{Class: job.Retryable}, false, time.Now(), 0); v.Retry {
		t.Errorf("delays are left, and the last attempt is followed by %+v", v)
	}
	wait := attempt(3, retry).DecideRetry(&job.Fault{Class: job.Wait}, false, time.Unix(1010, 0), 0.5)
	if wait != (job.RetryDecision{Retry: true, Delay: 5 * time.Second, Refund: true}) {
		t.Errorf("a wait is followed by %+v", wait)
	}
}

// An error that is no fault may succeed later; a wrapped fault is found.
func TestFaultOf(t *testing.T) {
	t.Parallel()
	fault := &job.Fault{Code: "quota", Class: job.Final}
	if got := job.FaultOf(fmt.Errorf("call: %w", fault)); got != fault {
		t.Errorf("a wrapped fault is %+v", got)
	}
	if got := job.FaultOf(errors.New("boom")); got.Class != job.Retryable || got.Code != "executor_error" || got.Message != "boom" {
		t.Errorf("the fault of a plain error is %+v", got)
	}
}

// A caller's text is shown bounded, printable and valid.
func TestQuote(t *testing.T) {
	t.Parallel()
	got := job.Quote("a\x00b\xffc\n" + string(make([]byte, 1000)))
	if len(got) > 400 || got[:2] != `"a` {
		t.Errorf("quoted as %q", got)
	}
	for _, r := range got {
		if r < ' ' {
			t.Errorf("%q holds a control character", got)
		}
	}
}

func TestSecondsNeverRoundsToZero(t *testing.T) {
	t.Parallel()
	for s, want := range map[float64]time.Duration{
		0: 0, 1e-12: 1, 4e-10: 1, 1.001: 1001 * time.Millisecond, 2.3: 2300 * time.Millisecond, 1.1: 1100 * time.Millisecond,
	} {
		if got := job.Seconds(s); got != want {
			t.Errorf("%v seconds are %d ns, want %d", s, got, want)
		}
	}
}

func TestPolicyRoundsUpToMilliseconds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]time.Duration{
		0: 0, 1: time.Millisecond, time.Millisecond: time.Millisecond, time.Millisecond + 1: 2 * time.Millisecond, job.MaxDuration: job.MaxDuration,
	} {
		given := job.Policy{Timeouts: job.Timeouts{RunHard: d, Abandon: d}, Retry: job.Retry{For: d, Delays: []time.Duration{d}}}
		p := given.RoundUp()
		if p.Timeouts.RunHard != want || p.Timeouts.Abandon != want || p.Retry.For != want || p.Retry.Delays[0] != want {
			t.Errorf("%s becomes %+v, want %s", d, p, want)
		}
		if given.Retry.Delays[0] != d {
			t.Errorf("the given delay %s became %s", d, given.Retry.Delays[0])
		}
	}
}
