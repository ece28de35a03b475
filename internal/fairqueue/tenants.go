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
	now         int64
	last        int64 // the furthest turn that was ever given
	activations int64 // how often a tenant got a queued job after it had none
	active      tenantHeap
	tidyAt      int // with how many tenants it is worth looking for those without jobs
}

// tenantPlace is where a tenant stands among tenants.
type tenantPlace struct {
	turn        int64 // of its next job
	activatedAt int64 // when it got a queued job, among all that did; 0 while it has none
	heapIndex   int   // in the heap
}

func (p *tenantPlace) before(o *tenantPlace) bool {
	return p.turn < o.turn || p.turn == o.turn && p.activatedAt < o.activatedAt
}

// update brings a tenant in or out when it has queued jobs or none any more.
func (s *tenantTurns) update(t *tenant) {
	switch {
	case t.queued > 0 && t.activatedAt == 0:
		if len(s.active) == 0 {
			s.now = max(s.now, s.last) // nobody waits, so nobody was overtaken
		}
		s.activations++
		t.turn, t.activatedAt = max(s.now, t.turn), s.activations
		s.last = max(s.last, t.turn)
		heap.Push(&s.active, t)
	case t.queued == 0 && t.activatedAt != 0:
		heap.Remove(&s.active, t.heapIndex)
		t.activatedAt = 0
	}
}

// advance moves the turns on when a job of the tenant is about to be claimed.
func (s *tenantTurns) advance(t *tenant) {
	s.now = max(s.now+max(turnCost/int64(max(len(s.active), 1)), 1), t.turn)
	t.turn += turnCost
	s.last = max(s.last, t.turn)
	if t.activatedAt != 0 {
		heap.Fix(&s.active, t.heapIndex)
	}
}

// tenantHeap is a heap of the tenants with queued jobs, the next one first.
type tenantHeap []*tenant

func (p tenantHeap) Len() int           { return len(p) }
func (p tenantHeap) Less(i, k int) bool { return p[i].before(&p[k].tenantPlace) }
func (p tenantHeap) Swap(i, k int)      { p[i], p[k], p[i].heapIndex, p[k].heapIndex = p[k], p[i], k, i }

func (p *tenantHeap) Push(x any) {
	t := x.(*tenant)
	t.heapIndex = len(*p)
	*p = append(*p, t)
}

func (p *tenantHeap) Pop() any {
	last := len(*p) - 1
	t := (*p)[last]
	(*p)[last] = nil
	*p = (*p)[:last]
	return t
}

// NextTenant is the tenant whose queued job is to be claimed next, of all tenants or of one,
// and how many of the next few jobs are about its share: a store may read so many of
// its line at once. share is 0 when nobody has a queued job.
func (q *Queue) NextTenant(only *string, few int) (tenant string, share int) {
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

// AdvanceTurn moves the turns on. It is called for each job that is claimed, before its Move.
func (q *Queue) AdvanceTurn(tenant string, priority int, turn int64) {
	t := q.tenant(tenant)
	t.advance(priority, turn)
	q.turns.advance(t)
}

// TenantTurn is a tenant with queued jobs, as far as positions depend on it.
type TenantTurn struct {
	Tenant      string
	Turn, Since int64
	Queued      int
}

// TenantTurns lists the tenants with queued jobs into a buffer, when they are several.
func (q *Queue) TenantTurns(into []TenantTurn) []TenantTurn {
	into = into[:0]
	if len(q.turns.active) > 1 {
		for _, t := range q.turns.active {
			into = append(into, TenantTurn{t.name, t.turn, t.activatedAt, t.queued})
		}
	}
	return into
}

// Position is how many jobs of all tenants are claimed before one that has so many of
// its own tenant's before it.
func Position(all []TenantTurn, tenant string, rank int) int {
	var own *TenantTurn
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
