package sqlite

import "github.com/meanwhile-run/meanwhile/internal/job"

const (
	// turnCost is what one job of weight one costs its key.
	turnCost = 1 << 10
	// headStart is what one step of priority is worth: a thousand turns, so that the
	// highest is ahead of four thousand jobs of one key, and nothing starves.
	headStart = 1000 * turnCost
	// mostDebts bounds the memory of keys that are owed a later turn and have no job.
	mostDebts = 1 << 16
)

// queueTurns is fair queueing: keys of a queue take turns, however many jobs each has.
// A job that becomes queued gets the turn that the queue is at, or the one after
// its key's last job, whichever is later; claims go by turns, oldest first among
// equals. The queue's turn passes as if all keys that wait were served at once: a
// claim moves it on by one part in as many as there are such keys, and at least to
// the turn that was claimed. So a key that waits is not overtaken by new keys for
// ever.
//
// A parked job is in no queue's line and costs its key no turn until it is there.
//
// It lives in memory, owned by the commit, and is made anew from the waiting jobs
// when the store opens: a debt without a queued job is forgotten.
type queueTurns struct {
	now    int64 // the turn that the queue is at
	last   int64 // after the furthest turn that was ever given
	active int   // keys with a queued job
	keys   map[string]*keyTurn
	debts  int // keys without a job, which are there for the turn they are owed
	tidyAt int // how many debts are worth looking which of them are over

	// limit is what the last look for parked jobs with room held keys to; missed says
	// that room may have come since which nobody took.
	limit  int
	missed bool
}

// keyTurn is a key with jobs that are not over, or with a turn to come.
type keyTurn struct {
	next   int64                  // the earliest turn of its next queued job
	behind int64                  // the earliest turn of its next parked job
	jobs   [job.Running + 1]int32 // by state
}

// busy is how much of a limit on running jobs is taken, or about to be.
func (k *keyTurn) busy() int { return int(k.jobs[job.Queued] + k.jobs[job.Running]) }

func (k *keyTurn) waiting() int {
	return int(k.jobs[job.Scheduled] + k.jobs[job.Queued] + k.jobs[job.Parked])
}

func (k *keyTurn) idle() bool { return k.jobs == [job.Running + 1]int32{} }

func newTurns() queueTurns {
	return queueTurns{keys: map[string]*keyTurn{}, tidyAt: 64, missed: true}
}

// noJobs is what is known of a key that nothing is known of.
var noJobs keyTurn

// key returns what is known of a key, to be read only.
func (q *queueTurns) key(name string) *keyTurn {
	if k := q.keys[name]; k != nil {
		return k
	}
	return &noJobs
}

// move counts a job that goes from one state to another, and gives one that becomes
// queued or parked its turn. The zero state is no job.
func (q *queueTurns) move(j *job.Job, from, to job.State) (k *keyTurn, turn int64) {
	if to == job.Queued && q.active == 0 {
		q.rest()
	}
	k = q.keys[j.Key]
	if k == nil {
		k = &keyTurn{}
		q.keys[j.Key] = k
		q.debts++ // until its job is counted
	}
	switch to {
	case job.Queued:
		turn = q.enter(k) + offset(j.Priority)
	case job.Parked:
		k.behind = max(q.now, k.next, k.behind) + turnCost
		turn = k.behind - turnCost + offset(j.Priority)
	}
	q.count(j.Key, k, from, to)
	return k, turn
}

// rest makes all debts be over: nobody waits, so nobody was overtaken.
func (q *queueTurns) rest() {
	q.now = max(q.now, q.last)
	if 4*q.debts > len(q.keys) {
		q.tidy()
	}
}

// enter gives a key its next turn.
func (q *queueTurns) enter(k *keyTurn) int64 {
	turn := max(q.now, k.next)
	k.next = turn + turnCost
	q.last = max(q.last, k.next)
	return turn
}

func (q *queueTurns) count(name string, k *keyTurn, from, to job.State) {
	was, idle := k.jobs[job.Queued], k.idle()
	if from != 0 && from <= job.Running {
		k.jobs[from]--
	}
	if to <= job.Running {
		k.jobs[to]++
	}
	switch is := k.jobs[job.Queued]; {
	case was == 0 && is > 0:
		q.active++
	case was > 0 && is == 0:
		q.active--
	}
	switch {
	case idle && !k.idle():
		q.debts--
	case !idle && k.idle():
		q.debts++
		q.left(name, k)
	}
}

// left forgets a key that has no job any more, unless it is owed a later turn.
func (q *queueTurns) left(name string, k *keyTurn) {
	if k.next <= q.now {
		delete(q.keys, name)
		q.debts--
	} else if q.debts > q.tidyAt {
		q.tidy()
	}
}

// tidy forgets the debts that are over, and all of them when they are too many. It
// waits longer for the next time the more there are left, so that a key costs
// little, however many there are.
func (q *queueTurns) tidy() {
	all := q.debts > mostDebts
	for name, k := range q.keys {
		if k.idle() && (all || k.next <= q.now) {
			delete(q.keys, name)
			q.debts--
		}
	}
	q.tidyAt = max(64, 2*q.debts, len(q.keys)/4)
}

// pass moves the queue's turn on when a job is about to be claimed.
func (q *queueTurns) pass(priority int, turn int64) {
	q.now = max(q.now+max(turnCost/int64(max(q.active, 1)), 1), turn-offset(priority))
}

// restore counts a waiting job that the store held when it opened.
func (q *queueTurns) restore(key []byte, state job.State, priority int, turn int64) {
	k := q.keys[string(key)]
	if k == nil {
		k = &keyTurn{}
		q.keys[string(key)] = k
	}
	k.jobs[state]++
	turn -= offset(priority)
	switch state {
	case job.Queued:
		if k.jobs[job.Queued] == 1 {
			q.active++
		}
		if q.last == 0 || turn < q.now {
			q.now = turn
		}
		k.next = max(k.next, turn+turnCost)
		q.last = max(q.last, k.next)
	case job.Parked:
		k.behind = max(k.behind, turn+turnCost)
	}
}

func offset(priority int) int64 { return int64(priority-job.DefaultPriority) * headStart }
