package fairqueue

import "github.com/meanwhile-run/meanwhile/internal/job"

// Arrival is a new job as it asks to be admitted.
type Arrival struct {
	Queue   string
	Key     Key
	Delayed bool // it is to become ready later
	Leased  bool // a worker waits for it
}

// added is what the jobs before one in its group add to what the limits look at.
type added struct {
	running    int // in the queue
	keyBusy    int // of the key: queued or running
	keyWaiting int
}

// FirstState is where a new job begins: running only where nothing forbids it.
func (q *Queue) FirstState(a *Arrival) job.State { return q.firstState(a, added{}) }

func (q *Queue) firstState(a *Arrival, with added) job.State {
	if a.Delayed {
		return job.Scheduled
	}
	if most := q.limitsOf(a.Key.Name).KeyRunning; most > 0 && q.keyState(a.Key).busy()+with.keyBusy >= most {
		return job.Parked
	}
	if !a.Leased {
		return job.Queued
	}
	if most := q.Limits.Running; q.Counts.Paused || most > 0 && int(q.Counts.Running)+with.running >= most {
		return job.Queued
	}
	return job.Running
}

// Admit refuses a job that would wait beyond its key's limit, with [job.KeyFull].
func (q *Queue) Admit(a *Arrival) error { return q.admit(a, added{}) }

func (q *Queue) admit(a *Arrival, with added) error {
	most := q.limitsOf(a.Key.Name).KeyWaiting
	if most == 0 || !q.firstState(a, with).Waiting() {
		return nil
	}
	if n := q.keyState(a.Key).waiting() + with.keyWaiting; n >= most {
		return job.Errorf(job.KeyFull, "the key %s has %d jobs waiting in the queue %s, of %d that it may have: try again when some have run",
			job.Quote(a.Key.Name), n, a.Queue, most)
	}
	return nil
}

// Group admits jobs that are stored all or none: each is held to the limits as if
// those before it had been stored.
type Group struct {
	running map[*Queue]int
	added   map[queueKey]*added // running aside
}

type queueKey struct {
	queue *Queue
	key   Key
}

// Admit is [Queue.Admit] for the next job of the group.
func (g *Group) Admit(q *Queue, a *Arrival) error {
	if g.added == nil {
		g.running, g.added = map[*Queue]int{}, map[queueKey]*added{}
	}
	with := g.added[queueKey{q, a.Key}]
	if with == nil {
		with = &added{}
		g.added[queueKey{q, a.Key}] = with
	}
	with.running = g.running[q]
	if err := q.admit(a, *with); err != nil {
		return err
	}
	state := q.firstState(a, *with)
	if state == job.Running {
		g.running[q]++
	}
	if busy(state) {
		with.keyBusy++
	}
	if state.Waiting() {
		with.keyWaiting++
	}
	return nil
}

// Load is what a queue holds and what is on its way to it, as far as a process knows.
type Load struct {
	Counts    job.Counts
	Arriving  int // jobs on their way that are ready at once
	Delayed   int // jobs on their way that become ready later
	FreeSlots int // slots that would take a queued job at once: none while the queue is held
}

// Waiting is how many jobs wait once what is on its way is stored. A job waits until a
// worker has it: scheduled, queued and parked jobs do. One that a free slot takes at
// once does not.
func (l *Load) Waiting() int64 {
	c := &l.Counts
	return c.Scheduled + c.Parked + int64(l.Delayed) + max(c.Queued+int64(l.Arriving)-int64(l.FreeSlots), 0)
}

// Full says that so many jobs wait as may: no more is admitted, not even one for which
// a slot is free. Jobs whose attempts fail wait again, so that a queue that does
// nothing but fail would otherwise grow for ever. 0 is no limit.
func (l *Load) Full(depth int) bool { return depth > 0 && l.Waiting() >= int64(depth) }
