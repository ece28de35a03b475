package ops

import (
	"fmt"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Every lane has its own name, and parses to the state, tenant and resource that it was made of.
func TestLanesAreDistinct(t *testing.T) {
	t.Parallel()
	names := []string{"", "a", "1:a", "ü", "12", ":", "+", "a\x00b"}
	made := map[string]string{}
	for _, tenant := range names {
		for _, key := range names {
			for _, resource := range names {
				suspect := SuspectLane(&job.Job{Owner: job.Owner{Tenant: tenant}, Resource: resource})
				if s, of, needs := ParseLane(suspect); s != job.Parked || of != tenant || needs != resource {
					t.Errorf("the lane %q of suspects parses to %s, %q, %q", suspect, s, of, needs)
				}
				for _, s := range []job.State{job.Queued, job.Parked} {
					of := fmt.Sprintf("%s %q %q", s, tenant, resource)
					if s == job.Parked {
						of += fmt.Sprintf(" %q", key)
					}
					name := Lane(s, fairqueue.Key{Tenant: tenant, Name: key}, resource)
					if other, ok := made[name]; ok && other != of {
						t.Fatalf("the lane %q is of %s and of %s", name, of, other)
					}
					made[name] = of
					state, gotTenant, gotResource := ParseLane(name)
					if state != s || gotResource != resource || gotTenant != tenant {
						t.Errorf("the lane %q parses to %s, %q, %q", name, state, gotTenant, gotResource)
					}
				}
			}
		}
	}
}
