package fairqueue

import "github.com/meanwhile-run/meanwhile/internal/job"

// Arrival is a new job before it is admitted.
type Arrival struct {
	Queue    string
	Key      Key
	Resource string
	Delayed  bool // it becomes ready later
	Leased   bool // a worker is waiting for it
}

// added is the number of jobs that the earlier jobs of a group add to each limited count.
type added struct {
	running    int            // running jobs of the queue
	keyRunning int            // running jobs of the key
	keyQueued  resourceCounts // queued jobs of the key; "" is a resource here
	keyWaiting int            // waiting jobs of the key
}

// resourceCounts are numbers of jobs by resource.
type resourceCounts map[string]int

func (c *resourceCounts) add(resource string, n int) {
	if *c == nil {
		*c = resourceCounts{}
	}
	(*c)[resource] += n
}

// FirstState returns the first state of a new job. It is Running only if a worker is waiting and
// no pause or limit forbids it.
func (q *Queue) FirstState(a *Arrival) job.State { return q.firstState(a, added{}) }

func (q *Queue) firstState(a *Arrival, earlier added) job.State {
	if a.Delayed {
		return job.Scheduled
	}
	busy := q.keyState(a.Key).busy(a.Resource) + earlier.keyRunning + earlier.keyQueued[a.Resource]
	if limit := q.limitsOf(a.Key.Name).KeyRunning; limit > 0 && busy >= limit {
		return job.Parked
	}
	if !a.Leased {
		return job.Queued
	}
	// A pause and the limit of running jobs stop claims, not submits: the job is queued.
	if limit := q.Limits.Running; q.Counts.Paused || limit > 0 && int(q.Counts.Running)+earlier.running >= limit {
		return job.Queued
	}
	return job.Running
}

// Admit refuses a job with [job.KeyFull] if the job would wait and its key has reached its limit
// of waiting jobs.
func (q *Queue) Admit(a *Arrival) error { return q.admit(a, added{}) }

func (q *Queue) admit(a *Arrival, earlier added) error {
	limit := q.limitsOf(a.Key.Name).KeyWaiting
	if limit == 0 || !q.firstState(a, earlier).Waiting() {
		return nil
	}
	if n := q.keyState(a.Key).waiting() + earlier.keyWaiting; n >= limit {
		return job.Errorf(job.KeyFull, "the key %s has %d jobs waiting in the queue %s, of %d that it may have: try again when some have run",
			job.Quote(a.Key.Name), n, a.Queue, limit)
	}
	return nil
}

// Group admits jobs that are stored together or not at all. It checks each job as if the earlier
// jobs were already stored. The zero value is ready to use.
type Group struct {
	running map[*Queue]int
	added   map[queueKey]*added // by key; Admit sets running, which is for all keys of a queue
}

type queueKey struct {
	queue *Queue
	key   Key
}

// Admit does the same as [Queue.Admit] for the next job of the group. After a refusal the group
// must not be used.
func (g *Group) Admit(q *Queue, a *Arrival) error {
	if g.added == nil {
		g.running, g.added = map[*Queue]int{}, map[queueKey]*added{}
	}
	earlier := g.added[queueKey{q, a.Key}]
	if earlier == nil {
		earlier = &added{}
		g.added[queueKey{q, a.Key}] = earlier
	}
	earlier.running = g.running[q]
	if err := q.admit(a, *earlier); err != nil {
		return err
	}
	state := q.firstState(a, *earlier)
	switch state {
	case job.Running:
		g.running[q]++
		earlier.keyRunning++
	case job.Queued:
		earlier.keyQueued.add(a.Resource, 1)
	}
	if state.Waiting() {
		earlier.keyWaiting++
	}
	return nil
}

// Load is the number of a queue's jobs, including pending submits, as far as one process knows.
type Load struct {
	Counts    job.Counts
	Arriving  int // pending submits that will be ready at once
	Delayed   int // pending submits that will be ready later
	FreeSlots int // slots that could run a queued job at once; 0 while a pause or a limit forbids that
}

// Waiting returns the number of scheduled, queued and parked jobs once all pending submits are
// stored. A job that starts at once in a free slot does not wait.
func (l *Load) Waiting() int64 {
	c := &l.Counts
	return c.Scheduled + c.Parked + int64(l.Delayed) + max(c.Queued+int64(l.Arriving)-int64(l.FreeSlots), 0)
}

// Full reports whether the waiting jobs have reached depth; 0 is no limit. A full queue admits
// no job, even if a slot is free. A failed attempt makes its job wait again, so a queue whose
// attempts all fail would otherwise grow without bound.
func (l *Load) Full(depth int) bool { return depth > 0 && l.Waiting() >= int64(depth) }
