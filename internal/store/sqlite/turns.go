package sqlite

import "github.com/meanwhile-run/meanwhile/internal/job"

const (
	// turnCost is what one job of weight one costs its key.
	turnCost = 1 << 10
	// headStart is what one step of priority is worth: a thousand turns, so that the
	// highest is ahead of four thousand jobs of one key, and nothing starves.
	headStart = 1000 * turnCost
	// mostKeys bounds the memory of keys that are owed a later turn and wait for none.
	mostKeys = 1 << 16
)

// turns is fair queueing: keys of a queue take turns, however many jobs each has.
// A job that becomes queued gets the turn that the queue is at, or the one after
// its key's last job, whichever is later; claims go by turns, oldest first among
// equals. The queue's turn passes as if all keys that wait were served at once: a
// claim moves it on by one part in as many as there are such keys, and at least to
// the turn that was claimed. So a key that waits is not overtaken by new keys for
// ever.
//
// It lives in memory, owned by the commit, and is made anew from the queued jobs
// when the store opens: a debt without a queued job is forgotten.
type turns map[string]*queueTurns

type queueTurns struct {
	now    int64               // the turn that the queue is at
	last   int64               // after the furthest turn that was ever given
	active int64               // keys with a queued job
	keys   map[string]*keyTurn // those with a queued job, or a turn to come
}

type keyTurn struct {
	next   int64 // the earliest turn of its next job
	queued int
}

func (t turns) of(queue string) *queueTurns {
	q := t[queue]
	if q == nil {
		q = &queueTurns{keys: map[string]*keyTurn{}}
		t[queue] = q
	}
	return q
}

// enter gives a job that becomes queued its place in the order.
func (t turns) enter(j *job.Job) int64 {
	q := t.of(j.Queue)
	if q.active == 0 {
		q.rest()
	}
	k := q.keys[j.Key]
	if k == nil {
		k = &keyTurn{}
		q.keys[j.Key] = k
	}
	if k.queued == 0 {
		q.active++
	}
	turn := max(q.now, k.next)
	k.queued++
	k.next = turn + turnCost
	q.last = max(q.last, k.next)
	return turn + offset(j.Priority)
}

// leave notes that a queued job is queued no longer, by whatever way.
func (t turns) leave(j *job.Job) {
	q := t.of(j.Queue)
	k := q.keys[j.Key]
	if k == nil || k.queued == 0 {
		return
	}
	if k.queued--; k.queued > 0 {
		return
	}
	q.active--
	if k.next <= q.now {
		delete(q.keys, j.Key)
	} else if len(q.keys) > mostKeys {
		q.forget()
	}
}

// taken passes the queue's turn on when a job was claimed.
func (t turns) taken(j *job.Job, turn int64) {
	q := t.of(j.Queue)
	q.now = max(q.now+max(turnCost/max(q.active, 1), 1), turn-offset(j.Priority))
	t.leave(j)
}

// rest forgets all debts: nobody waits, so nobody was overtaken.
func (q *queueTurns) rest() {
	q.now = max(q.now, q.last)
	clear(q.keys)
}

// forget drops the debts of keys that wait for nothing.
func (q *queueTurns) forget() {
	for name, k := range q.keys {
		if k.queued == 0 {
			delete(q.keys, name)
		}
	}
}

// restore notes a key's queued jobs, which the store held when it opened.
func (t turns) restore(queue, key string, queued int, first, last int64) {
	q := t.of(queue)
	if q.active == 0 || first < q.now {
		q.now = first
	}
	q.active++
	q.keys[key] = &keyTurn{next: last + turnCost, queued: queued}
	q.last = max(q.last, last+turnCost)
}

func offset(priority int) int64 { return int64(priority-job.DefaultPriority) * headStart }
