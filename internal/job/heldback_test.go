package job_test

import (
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The state and the last failure of a job tell why it waits.
func TestHeldBackReason(t *testing.T) {
	t.Parallel()
	failed, lost := &job.Failure{Code: "upstream_error"}, &job.Failure{Code: job.WorkerLost}
	for want, j := range map[job.HeldBackBy]job.Job{
		job.HeldBackByDelay:   {State: job.Scheduled},
		job.HeldBackByBackoff: {State: job.Scheduled, Failure: failed},
		job.HeldBackByLoss:    {State: job.Scheduled, Failure: lost},
		job.HeldBackByKey:     {State: job.Parked, Losses: 2, Cleared: 1},
		job.HeldBackBySuspect: {State: job.Parked, Losses: 2},
	} {
		if got := j.HeldBackReason(); got != want {
			t.Errorf("%+v is held back by %q, want %q", j, got, want)
		}
	}
	for _, s := range []job.State{job.Queued, job.Running, job.Succeeded, job.Failed, job.Cancelled, job.Expired} {
		if got := (&job.Job{State: s, Failure: lost}).HeldBackReason(); got != "" {
			t.Errorf("a job that is %s is held back by %q", s, got)
		}
	}
}
