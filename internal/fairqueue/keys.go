package fairqueue

import "github.com/meanwhile-run/meanwhile/internal/job"

const (
	// turnCost is what one job of weight one costs its key, and its tenant.
	turnCost = 1 << 10
	// headStart is what one step of priority is worth: a thousand turns, so that the
	// highest is ahead of four thousand jobs of one key, and nothing starves.
	headStart = 1000 * turnCost
	// maxDebts bounds the memory of keys, and of tenants, that are owed a later turn
	// and have no job.
	maxDebts = 1 << 16
)

// keyTurns is where the queued jobs of one tenant wait. Its keys take turns, however many
// jobs each has. A job that becomes queued gets the turn that the line is at, or the
// one after its key's last job, whichever is later; claims go by turns, oldest first
// among equals. The line's turn passes as if all keys that wait were served at once:
// a claim moves it on by one part in as many as there are such keys, and at least to
// the turn that was claimed. So a key that waits is not overtaken by new keys for
// ever.
//
// A parked job is not in the line and costs its key no turn until it is.
//
// A debt without a queued job is forgotten when the store opens.
type keyTurns struct {
	now    int64 // the turn that the line is at
	last   int64 // after the furthest turn that was ever given
	active int   // keys with a queued job
	queued int   // jobs in the line
	jobs   int   // jobs that are not over
	keys   map[string]*keyState
	debts  int // keys without a job, which are there for the turn they are owed
	tidyAt int // with how many debts a look is worth it which of them are over
}

// keyState is a key with jobs that are not over, or with a turn to come.
type keyState struct {
	next       int64                  // the earliest turn of its next queued job
	nextParked int64                  // the earliest turn of its next parked job
	jobs       [job.Running + 1]int32 // by state
}

// busy is how much of a limit on running jobs is taken, or about to be.
func (k *keyState) busy() int { return int(k.jobs[job.Queued] + k.jobs[job.Running]) }

func (k *keyState) waiting() int {
	return int(k.jobs[job.Scheduled] + k.jobs[job.Queued] + k.jobs[job.Parked])
}

func (k *keyState) idle() bool { return k.jobs == [job.Running + 1]int32{} }

func newKeyTurns() keyTurns { return keyTurns{keys: map[string]*keyState{}, tidyAt: 64} }

// noJobs is the state of a key of which nothing is known.
var noJobs keyState

// move counts a job that goes from one state to another, and gives one that becomes
// queued or parked its turn.
func (l *keyTurns) move(key string, priority int, from, to job.State) (k *keyState, turn int64) {
	if to == job.Queued && l.active == 0 {
		l.clearDebts()
	}
	k = l.keys[key]
	if k == nil {
		k = &keyState{}
		l.keys[key] = k
		l.debts++ // until its job is counted
	}
	switch to {
	case job.Queued:
		turn = l.nextTurn(k) + offset(priority)
	case job.Parked:
		k.nextParked = max(l.now, k.next, k.nextParked) + turnCost
		turn = k.nextParked - turnCost + offset(priority)
	}
	l.count(key, k, from, to)
	return k, turn
}

// clearDebts makes all debts be over: nobody waits, so nobody was overtaken.
func (l *keyTurns) clearDebts() {
	l.now = max(l.now, l.last)
	if 4*l.debts > len(l.keys) {
		l.tidy()
	}
}

// nextTurn gives a key its next turn.
func (l *keyTurns) nextTurn(k *keyState) int64 {
	turn := max(l.now, k.next)
	k.next = turn + turnCost
	l.last = max(l.last, k.next)
	return turn
}

func (l *keyTurns) count(name string, k *keyState, from, to job.State) {
	was, idle := k.jobs[job.Queued], k.idle()
	if from != 0 && from <= job.Running {
		k.jobs[from]--
		l.jobs--
	}
	if to <= job.Running {
		k.jobs[to]++
		l.jobs++
	}
	is := k.jobs[job.Queued]
	l.queued += int(is - was)
	switch {
	case was == 0 && is > 0:
		l.active++
	case was > 0 && is == 0:
		l.active--
	}
	switch {
	case idle && !k.idle():
		l.debts--
	case !idle && k.idle():
		l.debts++
		l.forgetIfSettled(name, k)
	}
}

// forgetIfSettled forgets a key that has no job any more, unless it is owed a later turn.
func (l *keyTurns) forgetIfSettled(name string, k *keyState) {
	if k.next <= l.now {
		delete(l.keys, name)
		l.debts--
	} else if l.debts > l.tidyAt {
		l.tidy()
	}
}

// tidy forgets the debts that are over, and all of them when they are too many. It
// waits longer for the next time the more there are left, so that a key costs
// little, however many there are.
func (l *keyTurns) tidy() {
	all := l.debts > maxDebts
	for name, k := range l.keys {
		if k.idle() && (all || k.next <= l.now) {
			delete(l.keys, name)
			l.debts--
		}
	}
	l.tidyAt = max(64, 2*l.debts, len(l.keys)/4)
}

// advance moves the line's turn on when a job is about to be claimed.
func (l *keyTurns) advance(priority int, turn int64) {
	l.now = max(l.now+max(turnCost/int64(max(l.active, 1)), 1), turn-offset(priority))
}

// restore counts a job that the store held when it opened.
func (l *keyTurns) restore(key []byte, state job.State, priority int, turn int64) {
	k := l.keys[string(key)]
	if k == nil {
		k = &keyState{}
		l.keys[string(key)] = k
	}
	k.jobs[state]++
	l.jobs++
	turn -= offset(priority)
	switch state {
	case job.Queued:
		l.queued++
		if k.jobs[job.Queued] == 1 {
			l.active++
		}
		if l.last == 0 || turn < l.now {
			l.now = turn
		}
		k.next = max(k.next, turn+turnCost)
		l.last = max(l.last, k.next)
	case job.Parked:
		k.nextParked = max(k.nextParked, turn+turnCost)
	}
}

func offset(priority int) int64 { return int64(priority-job.DefaultPriority) * headStart }
