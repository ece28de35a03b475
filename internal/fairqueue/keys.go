package fairqueue

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	// turnCost is how far one job moves the next turn of its key, and of its tenant.
	turnCost = 1 << 10
	// headStart is the value of one step of priority: a thousand turns. A job of the highest
	// priority is ahead of four thousand jobs of one key with the default priority, but of no
	// more, so that no job starves.
	headStart = 1000 * turnCost
	// maxDebts bounds the number of keys, and of tenants, that have no job and are kept only
	// because their next turn is in the future.
	maxDebts = 1 << 16
)

// keyTurns orders the queued jobs of one tenant. Its keys take turns, regardless of how many
// jobs each has.
//
// A job that becomes queued gets the turn after the last job of its key and its resource, but never
// a turn before now. A store claims jobs by turn; among equal turns it claims the oldest job. Each
// claim moves now forward: by turnCost divided by the number of keys with queued jobs, and at least
// to the turn of the claimed job. So now advances as if all these keys were served at once, and new
// keys cannot overtake a waiting key forever. Jobs of different resources have clocks of their own;
// see [lane].
//
// A parked job has no turn in this order, and uses no turn of its key, until it is queued. Its
// number orders it among the parked jobs of its key and resource; see [parkedTurn].
//
// When the last queued job of a key and a resource is claimed, the key owes that turn: the next job
// that is queued is a turn later. Otherwise a key could submit one job at a time and avoid waiting
// for its later turns. A key without jobs is kept while it owes a turn, and is called a debt. A debt
// is lost when the store is opened again.
type keyTurns struct {
	now    int64 // the current turn
	last   int64 // the latest of all keyState.next so far
	active int   // keys with a queued job
	queued int   // queued jobs
	jobs   int   // unfinished jobs
	keys   map[string]*keyState
	debts  int // keys without a job
	tidyAt int // tidy looks for settled debts when there are this many debts

	plain lane             // of queued jobs that need no resource
	lanes map[string]*lane // by resource; most queues have no such jobs, and a nil map
}

// keyState is a key with unfinished jobs, or with a turn in the future.
type keyState struct {
	next  int64                  // by the tenant's clock, the turn after the one that it owes
	jobs  [job.Running + 1]int32 // by state
	plain keyResource            // its jobs that need no resource
	of    []keyResource          // its jobs by resource; the few entries are in no order
}

// keyResource counts the ready jobs of a key that need one resource.
type keyResource struct {
	name           string
	queued, parked int32
	last           int64 // the turn in its lane of the job that was queued last
}

// count counts n more jobs in a state.
func (r *keyResource) count(s job.State, n int32) {
	switch s {
	case job.Queued:
		r.queued += n
	case job.Parked:
		r.parked += n
	}
}

// resource returns the entry of a resource, or nil.
func (k *keyState) resource(name string) *keyResource {
	if name == "" {
		return &k.plain
	}
	for i := range k.of {
		if k.of[i].name == name {
			return &k.of[i]
		}
	}
	return nil
}

// addResource returns the entry of a resource. It replaces an entry without jobs, so that a key
// has no more entries than its jobs have resources.
func (k *keyState) addResource(name string) *keyResource {
	r := k.resource(name)
	for i := 0; r == nil && i < len(k.of); i++ {
		if k.of[i].queued == 0 && k.of[i].parked == 0 {
			r = &k.of[i]
			*r = keyResource{name: name}
		}
	}
	if r == nil {
		k.of = append(k.of, keyResource{name: name})
		r = &k.of[len(k.of)-1]
	}
	return r
}

// queued returns the number of queued jobs that need a resource.
func (k *keyState) queued(resource string) int {
	if r := k.resource(resource); r != nil {
		return int(r.queued)
	}
	return 0
}

// busy returns the number of jobs that take the places of a ready job: the running jobs of the
// key, and its queued jobs that need the same resource.
func (k *keyState) busy(resource string) int { return int(k.jobs[job.Running]) + k.queued(resource) }

func (k *keyState) waiting() int {
	return int(k.jobs[job.Scheduled] + k.jobs[job.Queued] + k.jobs[job.Parked])
}

func (k *keyState) idle() bool { return k.jobs == [job.Running + 1]int32{} }

func newKeyTurns() keyTurns { return keyTurns{keys: map[string]*keyState{}, tidyAt: 64} }

// noJobs is the state of a key without an entry.
var noJobs keyState

// move counts a job that moves from one state to its current one. A job that becomes queued or
// parked gets a number that orders it.
func (t *keyTurns) move(j *job.Job, from job.State) (k *keyState, turn int64) {
	to := j.State
	if to == job.Queued && t.active == 0 {
		t.clearDebts()
	}
	k = t.keys[j.Key]
	if k == nil {
		k = &keyState{}
		t.keys[j.Key] = k
		t.debts++ // until count adds its job
	}
	if ready(from) || ready(to) {
		r := k.addResource(j.Resource)
		if from == job.Queued {
			t.leaveLane(k, r, j)
		}
		r.count(from, -1)
		r.count(to, 1)
		switch to {
		case job.Queued:
			turn = t.nextTurn(k, r, t.addToLane(j.Resource)) + offset(j.Priority)
		case job.Parked:
			turn = parkedTurn(j)
		}
	}
	t.count(j.Key, k, from, to)
	return k, turn
}

// parkedHeadStart is how much earlier a parked job seems to have become ready for each step of
// priority. A job of higher priority is queued first, and no parked job starves.
const parkedHeadStart = time.Hour

// parkedTurn returns the number that orders a job among the parked jobs of its key and resource:
// by the time at which it became ready, with a head start for its priority. It depends on the job
// alone: a job that is queued and parked again returns to its place.
func parkedTurn(j *job.Job) int64 {
	return j.RunAt.UnixMicro() + int64(j.Priority-job.DefaultPriority)*parkedHeadStart.Microseconds()
}

// clearDebts removes all debts. It is called when no job is queued, because then no key has been
// overtaken.
func (t *keyTurns) clearDebts() {
	t.now = max(t.now, t.last)
	if 4*t.debts > len(t.keys) {
		t.tidy()
	}
}

// nextTurn returns the turn of a new queued job of a key, in its lane. r counts the job already.
func (t *keyTurns) nextTurn(k *keyState, r *keyResource, l *lane) int64 {
	others, now := t.otherLanes(k, r, l), l.now(t.now)
	if r.queued == 1 {
		// It is the first one of the key in this lane: the key's other lanes are before it.
		r.last = now + max(k.next-t.now, 0) + others*turnCost
	} else {
		r.last = max(now, r.last+(1+others)*turnCost)
	}
	return r.last
}

// leaveLane removes a job, which is no longer queued, from its lane. If it was claimed and is the
// last queued one of its key and resource, the key owes its turn.
func (t *keyTurns) leaveLane(k *keyState, r *keyResource, j *job.Job) {
	if l := t.lane(j.Resource); l != nil && r.queued == 1 && j.State == job.Running {
		// The turns of jobs that were cancelled or parked are not owed.
		k.next = max(k.next, t.now+min(r.last-l.now(t.now), 0)+turnCost)
		t.last = max(t.last, k.next)
	}
	t.removeFromLane(j.Resource, 1)
}

func (t *keyTurns) count(name string, k *keyState, from, to job.State) {
	was, idle := k.jobs[job.Queued], k.idle()
	if from != 0 && from <= job.Running {
		k.jobs[from]--
		t.jobs--
	}
	if to <= job.Running {
		k.jobs[to]++
		t.jobs++
	}
	is := k.jobs[job.Queued]
	t.queued += int(is - was)
	switch {
	case was == 0 && is > 0:
		t.active++
	case was > 0 && is == 0:
		t.active--
	}
	switch {
	case idle && !k.idle():
		t.debts--
	case !idle && k.idle():
		t.debts++
		t.forgetIfSettled(name, k)
	}
}

// forgetIfSettled removes a key that has lost its last job, unless it is a debt.
func (t *keyTurns) forgetIfSettled(name string, k *keyState) {
	if k.next <= t.now {
		delete(t.keys, name)
		t.debts--
	} else if t.debts > t.tidyAt {
		t.tidy()
	}
}

// tidy removes settled debts, or all debts if there are too many. The more debts are left, the
// later it runs again, so that its cost per key is constant.
func (t *keyTurns) tidy() {
	all := t.debts > maxDebts
	for name, k := range t.keys {
		if k.idle() && (all || k.next <= t.now) {
			delete(t.keys, name)
			t.debts--
		}
	}
	t.tidyAt = max(64, 2*t.debts, len(t.keys)/4)
}

// restore counts a job that the store reads when it opens.
func (t *keyTurns) restore(key []byte, resource string, state job.State, priority int, turn int64) {
	k := t.keys[string(key)]
	if k == nil {
		k = &keyState{}
		t.keys[string(key)] = k
	}
	k.jobs[state]++
	t.jobs++
	if !ready(state) {
		return
	}
	r := k.addResource(resource)
	r.count(state, 1)
	if state == job.Queued {
		turn -= offset(priority)
		t.queued++
		if k.jobs[job.Queued] == 1 {
			t.active++
		}
		t.restoreToLane(resource, turn)
		if r.queued == 1 || turn > r.last {
			r.last = turn
		}
	}
}

func offset(priority int) int64 { return int64(priority-job.DefaultPriority) * headStart }
