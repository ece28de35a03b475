package ops

import (
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// This file has the changes that ops make to the memory, and how they are followed.

// move counts a job that moved from one state to its current one, and returns its turn if it is
// now queued or parked. A new job comes from the state 0. suspect is whether the job was a suspect
// before. freed is true if a parked job of its key may now be queued.
func (m *Memory) move(j *job.Job, from job.State, suspect bool) (turn int64, freed bool) {
	q := m.changedQueue(j.Queue)
	turn, freed = q.Move(j, from)
	m.countMoved(q, j, from, suspect)
	if m.record {
		m.changes = append(m.changes, movedChange(j, from, turn, suspect))
	}
	if freed && !q.TryUnpark(fairqueue.KeyOf(j)) {
		freed = false
		m.add(Change{Kind: ScanNeeded, Queue: j.Queue})
	}
	return turn, freed
}

// movedChange returns the change of a move, without what its kind of move does not need.
func movedChange(j *job.Job, from job.State, turn int64, suspect bool) Change {
	c := Change{
		Kind: Moved, Queue: j.Queue, Tenant: j.Owner.Tenant, Key: j.Key, Resource: j.Resource, Priority: j.Priority,
		From: from, To: j.State, Turn: turn, Flag: suspect && (from == job.Running || j.State == job.Running),
	}
	if c.changesBytes() {
		c.Bytes = j.InputBytes
	}
	if c.changesReady() {
		c.RunAt = j.RunAt
	}
	return c
}

func (m *Memory) followMove(q *queue, c *Change) {
	j := job.Job{
		Owner: job.Owner{Tenant: c.Tenant}, Queue: c.Queue, Key: c.Key, Resource: c.Resource, Priority: c.Priority,
		InputBytes: c.Bytes, RunAt: c.RunAt, State: c.To,
	}
	q.Follow(&j, c.From, c.Turn)
	m.countMoved(q, &j, c.From, c.Flag)
}

// countMoved counts what fairqueue does not.
func (m *Memory) countMoved(q *queue, j *job.Job, from job.State, suspect bool) {
	if retried(from, j.State) {
		q.Counts.Retried++
	}
	switch {
	case !suspect:
	case j.State == job.Running:
		m.suspects.running++
	case from == job.Running:
		m.suspects.running--
	}
}

// mustBeLegal panics if a job may not move from one state to its current one.
func mustBeLegal(j *job.Job, from job.State) {
	if !job.CanMove(from, j.State) {
		panic(fmt.Sprintf("ops: %s → %s is no legal move", from, j.State))
	}
}

// advance moves the turns forward before a queued job is claimed.
func (m *Memory) advance(j *Job, room fairqueue.Room) {
	held, laneNow := m.queue(j.Queue).AdvanceTurn(j.Owner.Tenant, j.Resource, j.Priority, j.Turn, room)
	for _, resource := range held {
		m.add(Change{Kind: Held, Queue: j.Queue, Tenant: j.Owner.Tenant, Resource: resource})
	}
	m.add(Change{Kind: Advanced, Queue: j.Queue, Tenant: j.Owner.Tenant, Resource: j.Resource, Turn: laneNow})
}

// nextTenant returns the tenant whose queued job is next; see [fairqueue.Queue.NextTenant].
func (m *Memory) nextTenant(q *queue, only *string, want int, room fairqueue.Room) (tenant string, share int) {
	tenant, share = q.NextTenant(only, want, room)
	if m.record && only == nil {
		for _, passed := range q.Passed() {
			m.add(Change{Kind: Passed, Queue: q.name, Tenant: passed})
		}
	}
	return tenant, share
}

// pause sets or clears the pause of a queue.
func (m *Memory) pause(name string, paused bool) {
	m.changedQueue(name).Counts.Paused = paused
	m.add(Change{Kind: Paused, Queue: name, Flag: paused})
}

// forgetResource corrects the counts: no job of the tenant in the queue needs the resource.
func (m *Memory) forgetResource(queue, tenant, resource string) {
	m.queue(queue).ForgetResource(tenant, resource)
	m.add(Change{Kind: Forgot, Queue: queue, Tenant: tenant, Resource: resource})
}

// noteParkedSuspect notes that a queue has a parked suspect.
func (m *Memory) noteParkedSuspect(queue string) {
	if m.suspects.noteParked(queue) {
		m.add(Change{Kind: SuspectParked, Queue: queue})
	}
}

// nextSuspectQueue takes the queue whose parked suspect is next off the list.
func (m *Memory) nextSuspectQueue() string {
	s := &m.suspects
	queue := s.queues[0]
	s.queues = s.queues[1:]
	return queue
}

// keepSuspectQueue records whether the queue that was taken has a parked suspect. It goes to the
// end of the list then, so that the next suspect comes from another queue.
func (m *Memory) keepSuspectQueue(queue string, found bool) {
	if found {
		m.suspects.queues = append(m.suspects.queues, queue)
	}
	m.add(Change{Kind: NextSuspect, Queue: queue, Flag: found})
}
