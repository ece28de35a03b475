package ops

import (
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A lane tells the state, the tenant and the resource of its jobs.
func TestParseLaneReadsLanes(t *testing.T) {
	t.Parallel()
	for _, tenant := range []string{"", "a", "tenant:1", "=", "日本"} {
		for _, resource := range []string{"", "gpt", "3:abc"} {
			for _, state := range []job.State{job.Queued, job.Parked} {
				name := Lane(state, fairqueue.Key{Tenant: tenant, Name: "key"}, resource)
				s, of, needs := ParseLane(name)
				if state == job.Parked {
					needs = resource // the lane of parked jobs does not tell it
				}
				if s != state || of != tenant || needs != resource {
					t.Errorf("the lane %q of %s, %q, %q is read as %s, %q, %q", name, state, tenant, resource, s, of, needs)
				}
			}
		}
		if s, of, _ := ParseLane(SuspectLane(tenant)); s != job.Parked || of != tenant {
			t.Errorf("the lane of the suspects of %q is read as %s of %q", tenant, s, of)
		}
	}
}
