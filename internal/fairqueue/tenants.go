package fairqueue

import "container/heap"

// tenantTurns is whose turn it is among tenants: start-time fair queueing over their
// lines, one job a turn. Every tenant with a queued job has a turn; the earliest one
// is next, the one that waits longer among equals. A claim costs its tenant one turn
// more. The turn of all passes as that of a line does: by one part in as many as
// there are tenants with queued jobs.
//
// The turn of a tenant is of its next job and is not stored with jobs: a number that
// a job got when it came could not say how many jobs of the tenant's other keys will
// come before it. So a tenant's order is its own, and priority orders its own jobs.
type tenantTurns struct {
	now    int64
	last   int64 // the furthest turn that was ever given
	came   int64 // how often a tenant got a queued job after it had none
	active places
	tidyAt int // with how many tenants it is worth looking for those without jobs
}

// place is where a tenant stands among tenants.
type place struct {
	turn  int64 // of its next job
	since int64 // when it got a queued job, among all that did; 0 while it has none
	at    int   // in the heap
}

func (p *place) before(o *place) bool {
	return p.turn < o.turn || p.turn == o.turn && p.since < o.since
}

// follow brings a tenant in or out when it has queued jobs or none any more.
func (s *tenantTurns) follow(t *tenant) {
	switch {
	case t.queued > 0 && t.since == 0:
		if len(s.active) == 0 {
			s.now = max(s.now, s.last) // nobody waits, so nobody was overtaken
		}
		s.came++
		t.turn, t.since = max(s.now, t.turn), s.came
		s.last = max(s.last, t.turn)
		heap.Push(&s.active, t)
	case t.queued == 0 && t.since != 0:
		heap.Remove(&s.active, t.at)
		t.since = 0
	}
}

// pass moves the turns on when a job of the tenant is about to be claimed.
func (s *tenantTurns) pass(t *tenant) {
	s.now = max(s.now+max(turnCost/int64(max(len(s.active), 1)), 1), t.turn)
	t.turn += turnCost
	s.last = max(s.last, t.turn)
	if t.since != 0 {
		heap.Fix(&s.active, t.at)
	}
}

// places is a heap of the tenants with queued jobs, the next one first.
type places []*tenant

func (p places) Len() int           { return len(p) }
func (p places) Less(i, k int) bool { return p[i].before(&p[k].place) }
func (p places) Swap(i, k int)      { p[i], p[k], p[i].at, p[k].at = p[k], p[i], k, i }

func (p *places) Push(x any) {
	t := x.(*tenant)
	t.at = len(*p)
	*p = append(*p, t)
}

func (p *places) Pop() any {
	last := len(*p) - 1
	t := (*p)[last]
	(*p)[last] = nil
	*p = (*p)[:last]
	return t
}

// Next is the tenant whose queued job is to be claimed next, of all tenants or of one,
// and how many of the next few jobs are about its share: a store may read so many of
// its line at once. share is 0 when nobody has a queued job.
func (q *Queue) Next(only *string, few int) (tenant string, share int) {
	if only != nil {
		if t := q.tenants[*only]; t != nil {
			share = min(few, t.queued)
		}
		return *only, share
	}
	active := q.turns.active
	if len(active) == 0 {
		return "", 0
	}
	t := active[0]
	if len(active) > 1 {
		few = few/len(active) + 1
	}
	return t.name, min(few, t.queued)
}

// Pass moves the turns on. It is called for each job that is claimed, before its Move.
func (q *Queue) Pass(tenant string, priority int, turn int64) {
	t := q.tenant(tenant)
	t.pass(priority, turn)
	q.turns.pass(t)
}

// Standing is a tenant with queued jobs, as far as positions depend on it.
type Standing struct {
	Tenant      string
	Turn, Since int64
	Queued      int
}

// Standings lists the tenants with queued jobs into a buffer, when they are several.
func (q *Queue) Standings(into []Standing) []Standing {
	into = into[:0]
	if len(q.turns.active) > 1 {
		for _, t := range q.turns.active {
			into = append(into, Standing{t.name, t.turn, t.since, t.queued})
		}
	}
	return into
}

// Position is how many jobs of all tenants are claimed before one that has so many of
// its own tenant's before it.
func Position(all []Standing, tenant string, rank int) int {
	var own *Standing
	for i := range all {
		if all[i].Tenant == tenant {
			own = &all[i]
		}
	}
	if own == nil {
		return rank
	}
	position, turn := rank, own.Turn+int64(rank)*turnCost
	for i := range all {
		o := &all[i]
		// Its jobs have the turns o.Turn, o.Turn + turnCost, …
		switch ahead := turn - o.Turn; {
		case o == own || ahead < 0:
		case ahead%turnCost == 0 && o.Since > own.Since:
			position += min(o.Queued, int(ahead/turnCost))
		default:
			position += min(o.Queued, int(ahead/turnCost)+1)
		}
	}
	return position
}
