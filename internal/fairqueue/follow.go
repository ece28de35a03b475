package fairqueue

import "github.com/meanwhile-run/meanwhile/internal/job"

// Processes that share a store each have a queue of their own. A process that changes the queue
// passes the change on, and the others follow it. Turns of jobs are stored, so all queues count
// them from the same number. Clocks of tenants are not, so each queue has its own; clocks of lanes
// follow those of the process that claims.

// Follow counts a move that another process has counted with [Queue.Move], which returned turn.
func (q *Queue) Follow(j *job.Job, from job.State, turn int64) {
	q.Move(j, from)
	if j.State != job.Queued {
		return
	}
	// Move has given the job a turn of its own: replace it.
	t := q.tenant(j.Owner.Tenant)
	t.keys[j.Key].addResource(j.Resource).last = turn - offset(j.Priority)
}

// FollowAdvance moves the turns forward before a job that another process claims: there
// [Queue.AdvanceTurn] returned laneNow.
func (q *Queue) FollowAdvance(tenant, resource string, laneNow int64) {
	t := q.tenant(tenant)
	t.followAdvance(resource, laneNow)
	q.turns.advance(t)
}

// FollowHeld notes that a claim of another process has passed the lane of a resource.
func (q *Queue) FollowHeld(tenant, resource string) {
	t := q.tenant(tenant)
	if l := t.lane(resource); l != nil {
		l.hold(t.now)
	}
}

// Passed returns the tenants that the last call of [Queue.NextTenant] has passed because their jobs
// had no room, and that it had not passed before. The list is valid until the next call.
func (q *Queue) Passed() []string { return q.turns.justPassed }

// FollowPassed notes that another process has passed a tenant.
func (q *Queue) FollowPassed(tenant string) { q.tenant(tenant).passed = true }
