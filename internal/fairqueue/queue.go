// Package fairqueue computes the order of a queue's jobs, the limits of its keys, and the
// admission of new jobs, in the same way for every store. The package is pure: it reads no clock
// and no disk. A store reports every change of a job's state to it.
//
// Turns have two levels. Tenants take turns, regardless of how many keys and jobs each has;
// within a tenant its keys take turns. A key is a tenant and a name: two tenants that use the
// same name have different keys.
package fairqueue

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Queue is the in-memory state of one queue. A store builds it from the waiting and running
// jobs when it opens. It has no lock: one goroutine at a time uses it.
type Queue struct {
	// Counts of the queue's jobs. Move keeps the counts of states and bytes; the store keeps the
	// others.
	Counts job.Counts
	// Limits are the current limits. The store sets them for each batch.
	Limits job.Limits

	tenants    map[string]*tenant
	lastTenant *tenant // the tenant of the last call; most queues have only one
	turns      tenantTurns
	ready      readyTimes

	// scannedKeyRunning is Limits.KeyRunning at the last scan for parked jobs that may be
	// queued. scanNeeded is true if there may be such jobs since then.
	scannedKeyRunning int
	scanNeeded        bool
}

// New makes a queue without jobs.
func New() *Queue {
	return &Queue{tenants: map[string]*tenant{}, turns: tenantTurns{tidyAt: 64}, scanNeeded: true}
}

// Key identifies the jobs that take turns with other keys of a queue.
type Key struct{ Tenant, Name string }

// KeyOf returns the key of a job.
func KeyOf(j *job.Job) Key { return Key{j.Owner.Tenant, j.Key} }

// tenant is a tenant with unfinished jobs in the queue, or with a turn in the future.
type tenant struct {
	name string
	keyTurns
	tenantPlace
}

func (q *Queue) tenant(name string) *tenant {
	if q.lastTenant != nil && q.lastTenant.name == name {
		return q.lastTenant
	}
	t := q.tenants[name]
	if t == nil {
		q.tidy()
		t = &tenant{name: name, keyTurns: newKeyTurns()}
		q.tenants[name] = t
	}
	q.lastTenant = t
	return t
}

// keyState returns the state of a key. The caller must not change it.
func (q *Queue) keyState(k Key) *keyState {
	t := q.lastTenant
	if t == nil || t.name != k.Tenant {
		t = q.tenants[k.Tenant]
	}
	if t != nil {
		if s := t.keys[k.Name]; s != nil {
			return s
		}
	}
	return &noJobs
}

// Move counts a job that has changed from the state from to j.State; zero is the state of a new
// job. A job that became queued or parked gets a turn. j.RunAt is when it became ready. freed is
// true if parked jobs of its key may now be queued; see [Queue.TryUnpark].
func (q *Queue) Move(j *job.Job, from job.State) (turn int64, freed bool) {
	to := j.State
	q.Counts.Move(from, to, j.InputBytes)
	if ready(to) && !ready(from) {
		q.ready.add(j.RunAt)
	} else if ready(from) && !ready(to) {
		q.ready.remove(j.RunAt)
	}
	t := q.tenant(j.Owner.Tenant)
	k, turn := t.move(j, from)
	q.turns.update(t)
	return turn, k.jobs[job.Parked] > 0 && (from == job.Running || from == job.Queued && to != job.Running)
}

// Restore adds a job that the store reads when it opens: a running job, or a waiting job with
// its turn. since is when a queued or parked job became ready; resource is what it needs. It does
// not change Counts.
func (q *Queue) Restore(tenant, key []byte, resource string, state job.State, priority int, turn int64, since time.Time) {
	if ready(state) {
		q.ready.add(since)
	}
	t := q.lastTenant
	if t == nil || string(tenant) != t.name {
		t = q.tenant(string(tenant))
	}
	t.restore(key, resource, state, priority, turn)
	q.turns.update(t)
}

// tidy removes tenants without jobs if there are many.
func (q *Queue) tidy() {
	if len(q.tenants) < q.turns.tidyAt {
		return
	}
	all := len(q.tenants) > maxDebts
	for name, t := range q.tenants {
		switch {
		case t.jobs > 0:
		case all || t.turn <= q.turns.now:
			delete(q.tenants, name)
		default:
			t.keyTurns = newKeyTurns() // the turns of its keys do not matter without a waiting job
		}
	}
	q.lastTenant = nil
	q.turns.tidyAt = max(64, 2*len(q.tenants))
}

// ready reports whether jobs of the state wait only for their turn.
func ready(s job.State) bool { return s == job.Queued || s == job.Parked }
