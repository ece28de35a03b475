package job_test

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A wait is charged to the job from its first start, or from when the upstream last served another
// job: the line of others is not its own fault.
func TestLineOfOthersIsNotCharged(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		waited, servedAgo, retryAfter time.Duration
		retry                         bool
	}{
		"just started":                       {0, 0, 0, true},
		"near the end":                       {110 * time.Second, 0, 5 * time.Second, true},
		"past the end":                       {119 * time.Second, 0, 5 * time.Second, false},
		"others were served":                 {time.Hour, time.Second, 5 * time.Second, true},
		"others were, and the wait is long":  {time.Hour, time.Second, 10 * time.Minute, true},
		"others just were, before its start": {0, time.Second, time.Hour, true},
		"nobody was for too long":            {time.Hour, 3 * time.Minute, 5 * time.Second, false},
		"nobody was since its start":         {90 * time.Second, time.Hour, 5 * time.Second, true},
		"nor for long enough":                {119 * time.Second, time.Hour, 5 * time.Second, false},
	} {
		j := job.Job{StartedAt: start, Attempt: 1, Policy: job.Policy{Retry: job.Retry{Backoff: time.Second, For: 2 * time.Minute}}}
		f := &job.Fault{Class: job.Wait, RetryAfter: c.retryAfter, ServedAgo: c.servedAgo}
		if v := j.DecideRetry(f, false, start.Add(c.waited), 0); v.Retry != c.retry || v.Retry && !v.Refund {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
