// Package fairqueue holds the rules of a queue: whose turn it is, what a key may
// run, and which jobs are admitted. They are the same for every store. The package
// is pure: it reads no clock and no disk, and a store tells it of every move of a
// job and asks it for the answer.
//
// Turns have two levels. Tenants take turns, whatever number of keys and jobs each
// of them has; within a tenant its keys take turns. A key is a tenant and a name:
// two tenants that use the same name share nothing.
package fairqueue

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Queue is what the rules know of one queue. It is made anew from the waiting and
// running jobs when a store opens. It has no lock.
type Queue struct {
	// Counts are kept by Move; the other counts of a queue are the store's to change.
	Counts job.Counts
	// Limits are what the jobs are held to now; the store sets them for each batch.
	Limits job.Limits

	tenants    map[string]*tenant
	lastTenant *tenant // the one that was asked for last: mostly there is no other
	turns      tenantTurns
	ready      readyTimes

	// scannedKeyRunning is the limit that the last look for parked jobs with room held keys
	// to; missed says that room may have come since that nobody took.
	scannedKeyRunning int
	scanNeeded        bool
}

// New makes a queue without jobs.
func New() *Queue {
	return &Queue{tenants: map[string]*tenant{}, turns: tenantTurns{tidyAt: 64}, scanNeeded: true}
}

// Key is whose turn it is within a queue.
type Key struct{ Tenant, Name string }

// KeyOf is the key of a job.
func KeyOf(j *job.Job) Key { return Key{j.Owner.Tenant, j.Key} }

// tenant is a tenant with jobs in the queue, or with a turn to come.
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

// keyState is the state of a key, to be read only.
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

// Move counts a job where it is now and no more where it was, and gives one that
// became queued or parked its turn. From the zero state comes a new job. The job's
// RunAt is since when it is ready. freed says that parked jobs of its key may have
// room now; see [Queue.TryUnpark].
func (q *Queue) Move(j *job.Job, from job.State) (turn int64, freed bool) {
	to := j.State
	q.Counts.Move(from, to, j.InputBytes)
	if ready(to) && !ready(from) {
		q.ready.add(j.RunAt)
	} else if ready(from) && !ready(to) {
		q.ready.remove(j.RunAt)
	}
	t := q.tenant(j.Owner.Tenant)
	k, turn := t.move(j.Key, j.Priority, from, to)
	q.turns.update(t)
	return turn, k.jobs[job.Parked] > 0 && busy(from) && !busy(to)
}

// Restore counts a job that the store held when it opened, that runs or waits with
// this turn, and is ready since then when it is queued or parked. Kept counts are not
// changed.
func (q *Queue) Restore(tenant, key []byte, state job.State, priority int, turn int64, since time.Time) {
	if ready(state) {
		q.ready.add(since)
	}
	t := q.lastTenant
	if t == nil || string(tenant) != t.name {
		t = q.tenant(string(tenant))
	}
	t.restore(key, state, priority, turn)
	q.turns.update(t)
}

// tidy forgets tenants without jobs, when they are many.
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
			t.keyTurns = newKeyTurns() // nobody waits in it: its keys owe nothing
		}
	}
	q.lastTenant = nil
	q.turns.tidyAt = max(64, 2*len(q.tenants))
}

// ready says that a job waits for nothing but its turn.
func ready(s job.State) bool { return s == job.Queued || s == job.Parked }

// busy says that a job of the state takes of its key's limit.
func busy(s job.State) bool { return s == job.Queued || s == job.Running }
