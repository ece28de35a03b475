package fairqueue

import "github.com/meanwhile-run/meanwhile/internal/job"

// Processes that share a store each have a queue of their own. A process that changes the queue
// passes the change on, and the others follow it. Turns of jobs are stored, so all queues count
// them from the same number; turns of tenants are not, so each queue has its own.

// Follow counts a move that another process has counted with [Queue.Move], which returned turn.
func (q *Queue) Follow(j *job.Job, from job.State, turn int64) {
	t := q.tenant(j.Owner.Tenant)
	last := t.last
	q.Move(j, from)
	if j.State != job.Queued {
		return
	}
	// Move has given the job a turn of its own: replace it.
	k := t.keys[j.Key]
	k.next = turn - offset(j.Priority) + turnCost
	k.addResource(j.Resource).next = k.next
	t.last = max(last, k.next)
}

// FollowAdvance moves the turns forward before a job that another process claims: there
// [Queue.AdvanceTurn] returned now.
func (q *Queue) FollowAdvance(tenant string, now int64) {
	t := q.tenant(tenant)
	t.now = now
	q.turns.advance(t)
}

// Passed returns the tenants that the last call of [Queue.NextTenant] has passed because their jobs
// had no room, and that it had not passed before. The list is valid until the next call.
func (q *Queue) Passed() []string { return q.turns.justPassed }

// FollowPassed notes that another process has passed a tenant.
func (q *Queue) FollowPassed(tenant string) { q.tenant(tenant).passed = true }
