package sqlite

import (
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// One batch may create the only job of a tally at an end, and delete it.
func TestTallyCreatedAndEmptiedInOneBatchIsRemoved(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	made := job.NewID()
	d.reopenWith(func(e store.End) store.FollowUp {
		if len(e.Job.Refs) == 0 {
			return store.FollowUp{}
		}
		return store.FollowUp{Jobs: []*store.Submit{{Job: job.Job{ID: made, Owner: testOwner, Queue: "q", Priority: 5, MaxAttempts: 1, Tally: "t"}}}}
	})
	_, lease := d.running(func(s *store.Submit) { s.Job.Refs = []string{"r"} })
	del := &store.Delete{Owner: testOwner, ID: made}
	d.apply(&store.Finish{Lease: lease, To: job.Succeeded}, del)
	if del.Err != nil {
		t.Fatal(del.Err)
	}
	n, err := d.Tally(d.Context(), testOwner, "t")
	if err != nil || n != (job.Counts{}) {
		t.Errorf("the tally is %+v, %v", n, err)
	}
}
