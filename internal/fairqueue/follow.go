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
	// Move has given the job a turn of its own: replace it.
	turn -= offset(j.Priority)
	switch j.State {
	case job.Queued:
		k := t.keys[j.Key]
		k.next = turn + turnCost
		t.last = max(last, k.next)
	case job.Parked:
		t.keys[j.Key].nextParked = turn + turnCost
	}
}

// FollowAdvance moves the turns forward before a job that another process claims: there
// [Queue.AdvanceTurn] returned now and passed.
func (q *Queue) FollowAdvance(tenant string, now int64, passed bool) {
	t := q.tenant(tenant)
	t.now, t.passed = now, passed
	q.turns.advance(t)
}
