package fairqueue

// The queued jobs of a tenant that need the same resource wait in a lane. Each lane has a clock,
// and the turns of its jobs are times of this clock. It begins at zero with the first job of the
// lane, and runs like the clock of the tenant, [keyTurns].now. A claim takes the job with the
// earliest turn, by the tenant's clock, of all lanes whose resources have room.
//
// When a claim passes a lane because its resource has no room, the lane is held: its clock stops.
// The next claim from the lane starts the clock again. So the lane keeps the one turn that it had,
// but not those that others used meanwhile, and its keys take turns with the others from then on.
//
// A key takes turns in each of its lanes, so that its jobs in one lane do not wait for its jobs in
// another one. While n of its lanes run, new jobs in each are n turns apart: together they have as
// many turns as those of a key with one lane. Turns of jobs that wait already are not changed, so a
// key that fills one lane after another has more: with two lanes one and a half, with n lanes
// 1 + 1/2 + … + 1/n.
//
// Clocks are not stored. After an opening, each lane is held at its earliest turn.
type lane struct {
	queued  int
	shift   int64 // the tenant's now less the lane's now, when the clock ran last
	held    bool
	stopped int64 // the lane's now while it is held
}

// now returns the time of the lane when the time of its tenant is now.
func (l *lane) now(now int64) int64 {
	if l.held {
		return l.stopped
	}
	return now - l.shift
}

// hold stops the clock.
func (l *lane) hold(now int64) {
	if !l.held {
		l.held, l.stopped = true, l.now(now)
	}
}

// lane returns the lane of a resource, or nil if it has no job.
func (t *keyTurns) lane(resource string) *lane {
	if resource != "" {
		return t.lanes[resource]
	}
	if t.plain.queued > 0 {
		return &t.plain
	}
	return nil
}

// addToLane counts a new queued job of a resource, and returns its lane.
func (t *keyTurns) addToLane(resource string) *lane {
	l := t.lane(resource)
	switch {
	case l != nil:
	case resource == "":
		l = &t.plain
		*l = lane{shift: t.now}
	default:
		l = &lane{shift: t.now}
		if t.lanes == nil {
			t.lanes = map[string]*lane{}
		}
		t.lanes[resource] = l
	}
	l.queued++
	return l
}

// removeFromLane removes n queued jobs. A lane without jobs is forgotten.
func (t *keyTurns) removeFromLane(resource string, n int) {
	l := t.lane(resource)
	if l == nil {
		return
	}
	if l.queued -= n; l.queued <= 0 {
		l.queued = 0
		delete(t.lanes, resource)
	}
}

// restoreToLane counts a queued job that the store reads when it opens.
func (t *keyTurns) restoreToLane(resource string, turn int64) {
	l := t.addToLane(resource)
	if l.queued == 1 || turn < l.stopped {
		l.held, l.stopped, l.shift = true, turn, t.now-turn
	}
}

// otherLanes returns how many other lanes have queued jobs of a key and are not held. It is 0 in a
// held lane: the key uses its turns in its other lanes meanwhile.
func (t *keyTurns) otherLanes(k *keyState, r *keyResource, l *lane) (n int64) {
	if l.held {
		return 0
	}
	for i := -1; i < len(k.of); i++ {
		other := &k.plain
		if i >= 0 {
			other = &k.of[i]
		}
		if other == r || other.queued == 0 {
			continue
		}
		if l := t.lane(other.name); l != nil && !l.held {
			n++
		}
	}
	return n
}

// step is how far one claim moves now at least.
func (t *keyTurns) step() int64 { return max(turnCost/int64(max(t.active, 1)), 1) }

// pass stops the clocks of the lanes that a claim from the lane of a resource passes, because they
// have no room. It returns the resources of those that were not held before.
func (t *keyTurns) pass(resource string, room Room) (held []string) {
	for name, l := range t.lanes {
		if name != resource && !l.held && !room.Has(name) {
			l.hold(t.now)
			held = append(held, name)
		}
	}
	return held
}

// advance moves the clocks forward before a job is claimed, and returns the new time of its lane.
func (t *keyTurns) advance(resource string, priority int, turn int64) (laneNow int64) {
	laneNow = turn - offset(priority)
	if l := t.lane(resource); l != nil {
		laneNow = max(laneNow, l.now(t.now)+t.step())
	}
	t.followAdvance(resource, laneNow)
	return laneNow
}

// followAdvance does what advance does, for a given new time of the lane.
func (t *keyTurns) followAdvance(resource string, laneNow int64) {
	t.now += t.step()
	if l := t.lane(resource); l != nil {
		t.now = max(t.now, laneNow+l.shift)
		l.shift, l.held = t.now-laneNow, false
	}
}

// Claimable is a lane of a tenant from which a claim may take jobs.
type Claimable struct {
	Resource string // "" for none
	// Shift is added to the turns of the lane to compare them with those of other lanes.
	Shift int64
}

// Claimables returns the lanes of the tenant's queued jobs for which there is room. A store looks
// for the tenant's next job only in these.
func (q *Queue) Claimables(tenant string, room Room) []Claimable {
	t := q.tenant(tenant)
	if len(t.lanes) == 0 {
		return []Claimable{{}}
	}
	var list []Claimable
	if t.queuedWithout() > 0 {
		list = append(list, Claimable{"", t.plain.shift})
	}
	for resource, l := range t.lanes {
		if room.Has(resource) {
			list = append(list, Claimable{resource, l.shift})
		}
	}
	return list
}

// LaneTurn is a turn in a lane of a tenant.
type LaneTurn struct {
	Tenant, Resource string
	Turn             int64
}

// LaneTurns returns, for each lane of each tenant whose jobs need resources, the time of the lane
// from which it continues if all resources have room: the same moment for all lanes of a tenant. It
// uses the buffer into.
func (q *Queue) LaneTurns(into []LaneTurn) []LaneTurn {
	into = into[:0]
	for _, t := range q.turns.active {
		if len(t.lanes) == 0 {
			continue
		}
		if t.plain.queued > 0 {
			into = append(into, LaneTurn{t.name, "", t.plain.now(t.now)})
		}
		for resource, l := range t.lanes {
			into = append(into, LaneTurn{t.name, resource, l.now(t.now)})
		}
	}
	return into
}

// TurnsBefore returns, for each lane of a job's tenant, the turn before which jobs of the lane are
// claimed before the job, if all resources have room. all is what [Queue.LaneTurns] returned; own is
// the turn of the job.
func TurnsBefore(all []LaneTurn, own LaneTurn) []LaneTurn {
	before := []LaneTurn{own}
	now := int64(0)
	for i := range all {
		if all[i].Tenant == own.Tenant && all[i].Resource == own.Resource {
			now = all[i].Turn
		}
	}
	for i := range all {
		if o := all[i]; o.Tenant == own.Tenant && o.Resource != own.Resource {
			before = append(before, LaneTurn{o.Tenant, o.Resource, own.Turn - now + o.Turn})
		}
	}
	return before
}
