package fairqueue

import "github.com/meanwhile-run/meanwhile/internal/job"

// Room is how many more jobs of each resource may be claimed. A resource without an entry has no
// limit. See [job.Job.Resource].
type Room map[string]int

// Has reports whether another job of the resource may be claimed.
func (r Room) Has(resource string) bool {
	n, limited := r[resource]
	return !limited || n > 0
}

// Take counts a claimed job.
func (r Room) Take(resource string) {
	if n, limited := r[resource]; limited {
		r[resource] = n - 1
	}
}

// resourceCounts are the numbers of queued jobs by resource, of jobs that need one. Most queues
// have no such jobs, and a nil map.
type resourceCounts map[string]int

func (c *resourceCounts) add(resource string, n int) {
	if *c == nil {
		*c = resourceCounts{}
	}
	if (*c)[resource] += n; (*c)[resource] <= 0 {
		delete(*c, resource)
	}
}

// countResource counts a job that has changed its state.
func (q *Queue) countResource(t *tenant, resource string, from, to job.State) {
	switch {
	case resource == "" || (from == job.Queued) == (to == job.Queued):
	case to == job.Queued:
		t.resources.add(resource, 1)
		q.resources.add(resource, 1)
	default:
		t.resources.add(resource, -1)
		q.resources.add(resource, -1)
	}
}

// queuedWithout returns the number of queued jobs that need no resource.
func (t *keyTurns) queuedWithout() int {
	n := t.queued
	for _, of := range t.resources {
		n -= of
	}
	return max(n, 0)
}

// claimable returns the number of queued jobs for which there is room.
func (t *keyTurns) claimable(room Room) int {
	n := t.queued
	for resource, of := range t.resources {
		if left, limited := room[resource]; limited {
			n -= max(of-max(left, 0), 0)
		}
	}
	return n
}

// Claimables returns the resources, with "" for none, of the tenant's queued jobs for which there
// is room. A store looks for the tenant's next job only among these.
func (q *Queue) Claimables(tenant string, room Room) []string {
	t := q.tenant(tenant)
	if len(t.resources) == 0 {
		return []string{""}
	}
	var list []string
	if t.queuedWithout() > 0 {
		list = append(list, "")
	}
	for resource := range t.resources {
		if room.Has(resource) {
			list = append(list, resource)
		}
	}
	return list
}

// Resources returns the resources, with "" for none, that queued jobs of any tenant need, in the
// buffer into.
func (q *Queue) Resources(into []string) []string {
	into = append(into[:0], "")
	for resource := range q.resources {
		into = append(into, resource)
	}
	return into
}

// ForgetResource corrects the counts: the tenant has no queued job of the resource. A store calls
// it if it finds none, because the row of a job was damaged.
func (q *Queue) ForgetResource(tenant, resource string) {
	t := q.tenant(tenant)
	if n := t.resources[resource]; n > 0 {
		t.resources.add(resource, -n)
		q.resources.add(resource, -n)
	}
}
