package fairqueue

import "container/heap"

// tenantTurns orders tenants by start-time fair queueing, one job a turn. Every tenant with a
// queued job has a turn. The tenant with the earliest turn is next; among equal turns, the
// tenant that has waited longer. A claim moves its tenant to a later turn. now advances as in
// [keyTurns]: by turnCost divided by the number of tenants with queued jobs.
//
// A tenant's turn belongs to its next job and is not stored with jobs: when a job arrives, it is
// unknown how many jobs of the tenant's other keys will be claimed before it. So priority orders
// only the jobs within a tenant.
type tenantTurns struct {
	now         int64
	last        int64 // the latest turn given so far
	activations int64 // how often a tenant without queued jobs got a queued job
	active      tenantHeap
	tidyAt      int // tidy looks for tenants without jobs when there are this many tenants

	justPassed []string // tenants that the last call of next has passed and that were not passed before
}

// tenantPlace is the position of a tenant in the order of tenants.
type tenantPlace struct {
	turn        int64 // turn of its next job
	activatedAt int64 // value of tenantTurns.activations when it got a queued job; 0 while it has none
	heapIndex   int   // index in tenantTurns.active
	passed      bool  // its turn came before that of a claimed job, and its jobs had no room
}

func (p *tenantPlace) before(o *tenantPlace) bool {
	return p.turn < o.turn || p.turn == o.turn && p.activatedAt < o.activatedAt
}

// update adds a tenant to the order when it has got a queued job, and removes it when it has
// none.
func (s *tenantTurns) update(t *tenant) {
	switch {
	case t.queued > 0 && t.activatedAt == 0:
		if len(s.active) == 0 {
			s.now = max(s.now, s.last) // no tenant waits, so none was overtaken
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

// advance moves the turns forward before a job of the tenant is claimed.
func (s *tenantTurns) advance(t *tenant) {
	s.now = max(s.now+max(turnCost/int64(max(len(s.active), 1)), 1), t.turn)
	t.turn += turnCost
	if t.passed {
		// It keeps the turn that it had, but not those after it: otherwise the others would wait
		// for as many of its jobs as they had run meanwhile.
		t.turn, t.passed = max(t.turn, s.now), false
	}
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

// NextTenant returns the tenant of the next queued job for which there is room: of all tenants,
// or, if only is not nil, of that one. share is about how many of the next limit jobs belong to
// this tenant: a store may read that many of its jobs at once. It is 0 if there is no such job.
func (q *Queue) NextTenant(only *string, limit int, room Room) (tenant string, share int) {
	if only != nil {
		if t := q.tenants[*only]; t != nil {
			share = min(limit, t.claimable(room))
		}
		return *only, share
	}
	t := q.turns.next(room)
	if t == nil {
		return "", 0
	}
	if n := len(q.turns.active); n > 1 {
		// Tenants alternate, so the next jobs are divided equally among them.
		limit = limit/n + 1
	}
	return t.name, min(limit, t.claimable(room))
}

// next returns the next tenant with a queued job for which there is room, or nil. It marks the
// tenants that it passes.
func (s *tenantTurns) next(room Room) *tenant {
	s.justPassed = s.justPassed[:0]
	if len(s.active) == 0 {
		return nil
	}
	// Nearly always the first one has such a job. The others are in no order.
	first := s.active[0]
	if first.claimable(room) > 0 {
		return first
	}
	first = nil
	for _, t := range s.active {
		if t.claimable(room) > 0 && (first == nil || t.before(&first.tenantPlace)) {
			first = t
		}
	}
	for _, t := range s.active {
		if first != nil && !t.passed && t.before(&first.tenantPlace) {
			t.passed = true
			s.justPassed = append(s.justPassed, t.name)
		}
	}
	return first
}

// AdvanceTurn moves the turns of the tenant, of its lanes and of its keys forward. A store calls it
// for each job that it claims, before Move. room is the room before the claim. The results are for
// other processes: held are the lanes that the claim passed and that were not held before, for
// [Queue.FollowHeld]; then laneNow is for [Queue.FollowAdvance].
func (q *Queue) AdvanceTurn(tenant, resource string, priority int, turn int64, room Room) (held []string, laneNow int64) {
	t := q.tenant(tenant)
	held = t.pass(resource, room)
	laneNow = t.advance(resource, priority, turn)
	q.turns.advance(t)
	return held, laneNow
}

// TenantTurn has the data of a tenant with queued jobs from which [Position] is computed.
type TenantTurn struct {
	Tenant      string
	Turn, Since int64
	Queued      int
}

// TenantTurns returns the tenants with queued jobs, in the buffer into. It returns none if there
// is only one such tenant.
func (q *Queue) TenantTurns(into []TenantTurn) []TenantTurn {
	into = into[:0]
	if len(q.turns.active) > 1 {
		for _, t := range q.turns.active {
			into = append(into, TenantTurn{t.name, t.turn, t.activatedAt, t.queued})
		}
	}
	return into
}

// Position returns the number of jobs, of all tenants, that are claimed before a given job. rank
// is the number of jobs of the same tenant before it.
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
		// The jobs of tenant o have the turns o.Turn, o.Turn + turnCost, and so on.
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
