package sqlite

import "github.com/meanwhile-run/meanwhile/internal/job"

const (
	// turnCost is what one job of weight one costs its key.
	turnCost = 1
	// headStart is how many turns one step of priority is worth: four steps, from the
	// default to the highest, are ahead of all of a full queue of the default depth,
	// and no further, so that nothing starves.
	headStart = 2500
	// mostKeys bounds the memory of who is owed a later turn.
	mostKeys = 1 << 16
)

// turns is start-time fair queueing: keys of a queue take turns, however many jobs
// each has. It lives in memory, owned by the commit, and is made anew from the
// queued jobs when the store opens: a debt without a queued job is forgotten.
type turns map[string]*queueTurns

type queueTurns struct {
	now  int64            // the turn of the job that was claimed last
	last int64            // the furthest turn that was ever given, and one more
	next map[string]int64 // the earliest turn of a key's next job; a key at or behind now is not in it
}

func (t turns) of(queue string) *queueTurns {
	q := t[queue]
	if q == nil {
		q = &queueTurns{next: map[string]int64{}}
		t[queue] = q
	}
	return q
}

// enter gives a job that becomes queued its place in the order.
func (t turns) enter(j *job.Job) int64 {
	q := t.of(j.Queue)
	turn := max(q.now, q.next[j.Key])
	q.next[j.Key] = turn + turnCost
	q.last = max(q.last, turn+turnCost)
	if len(q.next) > mostKeys {
		q.forget()
	}
	return turn + offset(j.Priority)
}

// taken moves the queue's turn to that of a job which was claimed.
func (t turns) taken(queue string, turn int64, priority int) {
	q := t.of(queue)
	q.now = max(q.now, turn-offset(priority))
}

// rest forgets all debts: nobody waits, so nobody was overtaken.
func (t turns) rest(queue string) {
	q := t.of(queue)
	q.now = max(q.now, q.last)
	clear(q.next)
}

// forget drops the keys whose next turn is here or about to be.
func (q *queueTurns) forget() {
	for key, turn := range q.next {
		if turn <= q.now+turnCost {
			delete(q.next, key)
		}
	}
}

// restore notes a queued job that the store held when it opened.
func (t turns) restore(queue, key string, first, last int64) {
	q := t.of(queue)
	if len(q.next) == 0 || first < q.now {
		q.now = first
	}
	q.next[key] = last + turnCost
	q.last = max(q.last, last+turnCost)
}

func offset(priority int) int64 { return int64(priority-job.DefaultPriority) * headStart }
