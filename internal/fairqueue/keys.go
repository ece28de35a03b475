package fairqueue

import "github.com/meanwhile-run/meanwhile/internal/job"

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
// A job that becomes queued gets the turn after the last job of its key, but never a turn before
// now. A store claims jobs by turn; among equal turns it claims the oldest job. Each claim moves
// now forward: by turnCost divided by the number of keys with queued jobs, and at least to the
// turn of the claimed job. So now advances as if all these keys were served at once, and new
// keys cannot overtake a waiting key forever.
//
// A parked job has no turn in this order, and uses no turn of its key, until it is queued. It
// has a number that orders it among the parked jobs of its key.
//
// A key without jobs is kept while its next turn is after now. Such a key is called a debt.
// Without debts, a key could submit one job at a time and avoid waiting for its later turns. A
// debt is lost when the store is opened again.
type keyTurns struct {
	now    int64 // the current turn
	last   int64 // the first turn that is later than all given turns
	active int   // keys with a queued job
	queued int   // queued jobs
	jobs   int   // unfinished jobs
	keys   map[string]*keyState
	debts  int // keys without a job
	tidyAt int // tidy looks for settled debts when there are this many debts

	resources resourceCounts // of queued jobs
}

// keyState is a key with unfinished jobs, or with a turn in the future.
type keyState struct {
	next       int64                  // the earliest turn of its next queued job
	nextParked int64                  // the earliest turn of its next parked job
	jobs       [job.Running + 1]int32 // by state
}

// busy returns the number of jobs that count against the limit of running jobs.
func (k *keyState) busy() int { return int(k.jobs[job.Queued] + k.jobs[job.Running]) }

func (k *keyState) waiting() int {
	return int(k.jobs[job.Scheduled] + k.jobs[job.Queued] + k.jobs[job.Parked])
}

func (k *keyState) idle() bool { return k.jobs == [job.Running + 1]int32{} }

func newKeyTurns() keyTurns { return keyTurns{keys: map[string]*keyState{}, tidyAt: 64} }

// noJobs is the state of a key without an entry.
var noJobs keyState

// move counts a job that moves from one state to another. A job that becomes queued or parked
// gets a number that orders it.
func (t *keyTurns) move(key string, priority int, from, to job.State) (k *keyState, turn int64) {
	if to == job.Queued && t.active == 0 {
		t.clearDebts()
	}
	k = t.keys[key]
	if k == nil {
		k = &keyState{}
		t.keys[key] = k
		t.debts++ // until count adds its job
	}
	switch to {
	case job.Queued:
		turn = t.nextTurn(k) + offset(priority)
	case job.Parked:
		// Keep k.next, so that a parked job uses no turn of its key. Its number only orders it
		// among the parked jobs of the key.
		k.nextParked = max(t.now, k.next, k.nextParked) + turnCost
		turn = k.nextParked - turnCost + offset(priority)
	}
	t.count(key, k, from, to)
	return k, turn
}

// clearDebts removes all debts. It is called when no job is queued, because then no key has been
// overtaken.
func (t *keyTurns) clearDebts() {
	t.now = max(t.now, t.last)
	if 4*t.debts > len(t.keys) {
		t.tidy()
	}
}

func (t *keyTurns) nextTurn(k *keyState) int64 {
	turn := max(t.now, k.next)
	k.next = turn + turnCost
	t.last = max(t.last, k.next)
	return turn
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

// advance moves now forward before a job is claimed.
func (t *keyTurns) advance(priority int, turn int64) {
	t.now = max(t.now+max(turnCost/int64(max(t.active, 1)), 1), turn-offset(priority))
}

// restore counts a job that the store reads when it opens.
func (t *keyTurns) restore(key []byte, state job.State, priority int, turn int64) {
	k := t.keys[string(key)]
	if k == nil {
		k = &keyState{}
		t.keys[string(key)] = k
	}
	k.jobs[state]++
	t.jobs++
	turn -= offset(priority)
	switch state {
	case job.Queued:
		t.queued++
		if k.jobs[job.Queued] == 1 {
			t.active++
		}
		if t.last == 0 || turn < t.now {
			t.now = turn // now is the earliest turn of all queued jobs
		}
		k.next = max(k.next, turn+turnCost)
		t.last = max(t.last, k.next)
	case job.Parked:
		k.nextParked = max(k.nextParked, turn+turnCost)
	}
}

func offset(priority int) int64 { return int64(priority-job.DefaultPriority) * headStart }
