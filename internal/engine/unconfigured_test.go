package engine_test

import (
	"path/filepath"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A queue that is no longer configured is shown while it has unfinished jobs, which can be
// cancelled.
func TestUnconfiguredQueueIsShownWhileItHasJobs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	before := startWithQueues(t, openStore(t, path), queues())
	old := before.submit(engine.Request{})
	before.stop()

	h := startWithQueues(t, openStore(t, path), queues()[1:])
	views, err := h.Queues(t.Context())
	if err != nil || len(views) != 2 {
		t.Fatalf("%d queues, %v", len(views), err)
	}
	v := views[0]
	if v.Name != "sim" || !v.Unconfigured || v.Counts.Queued != 1 || v.HeldBackBy != job.HeldBackByNoWorker || views[1].Unconfigured {
		t.Errorf("the queues are %+v", views)
	}
	if n, err := h.ChangeMany(t.Context(), engine.CancelAll, job.Filter{Owner: old.Owner, Queue: "sim"}); n != 1 || err != nil {
		t.Errorf("%d jobs of the queue were cancelled, %v", n, err)
	}
	if views, err := h.Queues(t.Context()); len(views) != 1 || err != nil {
		t.Errorf("without unfinished jobs: %+v, %v", views, err)
	}
}
