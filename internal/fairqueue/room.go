package fairqueue

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

// queuedWithout returns the number of queued jobs that need no resource.
func (t *keyTurns) queuedWithout() int {
	n := t.queued
	for _, l := range t.lanes {
		n -= l.queued
	}
	return max(n, 0)
}

// claimable returns the number of queued jobs for which there is room.
func (t *keyTurns) claimable(room Room) int {
	n := t.queued
	for resource, l := range t.lanes {
		if left, limited := room[resource]; limited {
			n -= max(l.queued-max(left, 0), 0)
		}
	}
	return n
}

// ForgetResource corrects the counts: the tenant has no queued job of the resource. A store calls
// it if it finds none, because the row of a job was damaged.
func (q *Queue) ForgetResource(tenant, resource string) {
	if t := q.tenant(tenant); resource != "" && t.lanes[resource] != nil {
		t.removeFromLane(resource, t.lanes[resource].queued)
	}
}
