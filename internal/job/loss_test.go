package job_test

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A lost job is retried after a backoff that doubles with each loss, until it has MaxLosses
// losses. Its attempts do not count.
func TestDecideRetryAfterLoss(t *testing.T) {
	t.Parallel()
	j := job.Job{MaxAttempts: 1}
	for _, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second} {
		j.Attempt++
		if v := j.DecideRetryAfterLoss(true); v != (job.RetryDecision{Retry: true, Delay: want}) {
			t.Errorf("after %d losses: %+v, want a wait of %v", j.Losses, v, want)
		}
		j.Finish(&job.Finish{To: job.Scheduled, Lost: true}, noon)
	}
	if v := j.DecideRetryAfterLoss(false); v.Retry {
		t.Errorf("the loss number %d is followed by %+v", j.Losses+1, v)
	}
	restricted := job.Job{Attempt: 1, MaxAttempts: 4}
	restricted.Policy.Retry.AfterOutput = job.FailAfterOutput
	if v := restricted.DecideRetryAfterLoss(true); v.Retry {
		t.Errorf("a job that is to fail after output is tried again: %+v", v)
	}
	if v := restricted.DecideRetryAfterLoss(false); !v.Retry {
		t.Error("a job without output is not tried again")
	}
}

// Losses are not failures: they do not count against MaxAttempts, and do not lengthen the
// backoff of a failure.
func TestLossesAreNotFailures(t *testing.T) {
	t.Parallel()
	j := job.Job{Attempt: 5, Losses: 4, MaxAttempts: 2}
	j.Policy.Retry.Backoff = time.Second
	later := &job.Fault{Class: job.Retryable}
	if v := j.DecideRetry(later, false, time.Time{}, 0); v != (job.RetryDecision{Retry: true, Delay: time.Second}) {
		t.Errorf("the first failure is followed by %+v", v)
	}
	j.Attempt++
	if v := j.DecideRetry(later, false, time.Time{}, 0); v.Retry {
		t.Errorf("the last failure is followed by %+v", v)
	}
}

// A job is a suspect after two losses in a row. An attempt that ends otherwise clears it.
func TestTwoLossesInARowMakeSuspect(t *testing.T) {
	t.Parallel()
	j := job.Job{}
	for i, end := range []struct{ lost, suspect bool }{
		{true, false}, {false, false}, {true, false}, {true, true}, {false, false}, {true, false}, {true, true},
	} {
		j.Finish(&job.Finish{To: job.Scheduled, Lost: end.lost}, noon)
		if j.Suspect() != end.suspect {
			t.Errorf("after %d ends, %d losses, it is a suspect: %v", i+1, j.Losses, j.Suspect())
		}
	}
	if j.Losses != 5 {
		t.Errorf("%d losses were counted, not 5", j.Losses)
	}
}
