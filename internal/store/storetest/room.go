package storetest

import (
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func roomRules() []rule {
	return []rule{
		{"a claim passes jobs whose resource has no room, however many there are", roomPassed},
		{"a job that was passed keeps its turn", roomKeepsTurn},
		{"a key whose jobs had no room saves one turn", roomSavesOneTurn},
		{"a key whose jobs had no room saves one turn over a reopening", long(roomTurnReopened)},
		{"a key's jobs for one resource do not wait for its jobs for another", roomKeyTurns},
		{"the claims of a batch share the room of a resource", roomShared},
		{"a resource without an entry has no limit", roomUnlimited},
		{"tenants whose jobs have no room are passed, and keep their turns", roomTenants},
		{"a job has its resource after every way back to the queue", roomAfterRequeue},
		{"a parked job has its resource once it is queued", roomUnparked},
		{"resources hold after a reopening", long(roomReopened)},
		{"a position counts the jobs of every resource", roomPosition},
		{"a position counts as if every resource had room", roomHeldPosition},
		{"a repeated claim answers its jobs whatever the room is", roomRepeated},
	}
}

func needing(resource string) func(*store.Submit) {
	return func(s *store.Submit) { s.Job.Resource = resource }
}

// claimWith claims up to n jobs with a room.
func (w *harness) claimWith(room map[string]int, n int) []job.ID {
	w.Helper()
	w.room = room
	defer func() { w.room = nil }()
	return claimedIDs(w.claim(queue, n))
}

func (w *harness) wantClaimed(when string, got []job.ID, want ...job.ID) {
	w.Helper()
	wantEqual(w, "the jobs claimed "+when, fmt.Sprint(got), fmt.Sprint(want))
}

func roomPassed(w *harness) {
	slow := w.submitMany(1500, needing("slow"))
	fast, other := w.submit(needing("fast")), w.submit()
	w.wantClaimed("behind 1,500 without room", w.claimWith(map[string]int{"slow": 0}, 10), fast, other)
	w.wantClaimed("when nothing has room", w.claimWith(map[string]int{"slow": 0}, 10))
	w.wantClaimed("when two have room", w.claimWith(map[string]int{"slow": 2}, 10), slow[:2]...)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 1498, Running: 4})
	w.do(newCancel(slow[2]), newDelete(slow[3]))
	w.wantClaimed("after a cancel and a delete", w.claimWith(map[string]int{"slow": 1}, 10), slow[4])
}

func roomKeepsTurn(w *harness) {
	a := w.submit(needing("slow"), withKey("a"))
	b := w.submit(needing("fast"), withKey("b"))
	w.wantClaimed("at first", w.claimWith(map[string]int{"slow": 0}, 1), b)
	late := w.submitMany(5, needing("fast"), withKey("c"))
	w.wantClaimed("with room", w.claimWith(map[string]int{"slow": 1}, 2), a, late[0])
}

func roomShared(w *harness) {
	w.submitMany(3, needing("m"))
	w.submitMany(3, needing("m"), inQueue("other"))
	w.room = map[string]int{"m": 4}
	first, second := w.newClaim(queue, 9), w.newClaim("other", 9)
	w.do(first, second)
	wantEqual(w, "the jobs claimed", len(first.Claimed)+len(second.Claimed), 4)
	wantEqual(w, "the caller's room", w.room["m"], 4)
	w.room = nil
}

func roomUnlimited(w *harness) {
	all := w.submitMany(3, needing("m"))
	w.wantClaimed("with an entry of another", w.claimWith(map[string]int{"other": 0}, 9), all...)
}

func roomTenants(w *harness) {
	var slow []job.ID
	for i := range 3 {
		slow = append(slow, w.submit(needing("slow"), ownedBy(job.Owner{Tenant: fmt.Sprint(i)})))
	}
	fast := w.submit(needing("fast"), ownedBy(job.Owner{Tenant: "last"}))
	w.wantClaimed("behind other tenants", w.claimWith(map[string]int{"slow": 0}, 2), fast)
	w.submit(needing("slow"), ownedBy(job.Owner{Tenant: "last"}))
	w.wantClaimed("with room", w.claimWith(map[string]int{"slow": 3}, 9), slow...)
	mine := w.newClaim(queue, 1)
	mine.Tenant = new(string)
	*mine.Tenant, w.room = "last", map[string]int{"slow": 0}
	w.do(mine)
	w.room = nil
	wantEqual(w, "the jobs of a tenant without room", len(mine.Claimed), 0)
}

func roomAfterRequeue(w *harness) {
	for name, back := range map[string]func(c *job.Claimed){
		"a release": func(c *job.Claimed) { w.do(newFinish(c.Lease(), job.Queued)) },
		"a backoff": func(c *job.Claimed) {
			w.do(newFinish(c.Lease(), job.Scheduled))
			w.advance(day)
			w.do(newDue())
		},
		"a retry": func(c *job.Claimed) {
			w.do(newFinish(c.Lease(), job.Failed))
			w.do(newRetry(c.Job.ID))
		},
	} {
		id := w.submit(needing("m"))
		c := w.claimOne(queue)
		wantEqual(w, "the resource as claimed", c.Job.Resource, "m")
		back(c)
		wantEqual(w, "the resource after "+name, w.job(id).Resource, "m")
		w.wantClaimed("without room after "+name, w.claimWith(map[string]int{"m": 0}, 9))
		w.wantClaimed("with room after "+name, w.claimWith(map[string]int{"m": 1}, 9), id)
	}
	w.submit(needing("m"), delayed(day))
	w.advance(2 * day)
	w.do(newDue())
	w.wantClaimed("without room after a delay", w.claimWith(map[string]int{"m": 0}, 9))
}

func roomUnparked(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	first, second := w.submit(needing("m")), w.submit(needing("m"))
	w.wantStates("at first", job.Parked, second)
	w.do(newCancel(first))
	w.wantStates("then", job.Queued, second)
	w.wantClaimed("without room", w.claimWith(map[string]int{"m": 0}, 9))
	w.wantClaimed("with room", w.claimWith(map[string]int{"m": 1}, 9), second)
}

func roomReopened(w *harness) {
	slow, fast := w.submitMany(3, needing("slow")), w.submit(needing("fast"))
	plain := w.submit()
	w.reopen()
	w.wantClaimed("without room", w.claimWith(map[string]int{"slow": 0}, 9), fast, plain)
	w.wantClaimed("with room", w.claimWith(map[string]int{"slow": 2}, 9), slow[:2]...)
}

// holdBacklog submits a backlog of the key "held" for the resource slow and one of the keys a and b,
// and claims jobs while slow has no room.
func (w *harness) holdBacklog() {
	w.Helper()
	w.submitMany(60, withKey("held"), needing("slow"))
	w.submitMany(60, withKey("a"), needing("fast"))
	w.submitMany(60, withKey("b"))
	for range 10 {
		wantEqual(w, "the jobs claimed without room", len(w.claimWith(map[string]int{"slow": 0}, 4)), 4)
	}
}

// wantTurnsOfHeld fails unless of the next 30 jobs a third are of the key "held", and the first one
// if it saved a turn.
func (w *harness) wantTurnsOfHeld(claim func(n int) []job.Claimed) {
	w.Helper()
	var held []int
	for i := range 30 {
		if claim(i)[0].Job.Key == "held" {
			held = append(held, i)
		}
	}
	if len(held) < 9 || len(held) > 12 || held[0] > 2 {
		w.Errorf("of 30 jobs of three keys %v were of the one that had no room", held)
	}
}

func roomSavesOneTurn(w *harness) {
	w.holdBacklog()
	w.wantTurnsOfHeld(func(int) []job.Claimed { return w.claim(queue, 1) })
	got := map[string]int{}
	for _, c := range w.claim(queue, 30) { // also in one claim
		got[c.Job.Key]++
	}
	if got["held"] < 9 || got["held"] > 11 {
		w.Errorf("of 30 jobs claimed at once there were %v of each key", got)
	}
}

func roomTurnReopened(w *harness) {
	w.holdBacklog()
	w.reopen()
	w.wantTurnsOfHeld(func(int) []job.Claimed { return w.claim(queue, 1) })
}

func roomKeyTurns(w *harness) {
	for _, room := range []map[string]int{nil, {"slow": 0}} {
		w.submitMany(20, withKey("a"), needing("slow"))
		w.submitMany(20, withKey("b"), needing("fast"))
		w.claimWith(room, 2)
		single := w.submit(withKey("a"), needing("fast"))
		w.claimWith(room, 6)
		wantEqual(w, fmt.Sprintf("the state after six claims with the room %v", room), w.job(single).State, job.Running)
	}
}

// positions returns the position of each job.
func (w *harness) positions(ids []job.ID) map[job.ID]int {
	w.Helper()
	positions := map[job.ID]int{}
	for _, id := range ids {
		positions[id] = w.position(id)
	}
	return positions
}

func roomPosition(w *harness) {
	var all []job.ID
	for i := range 30 {
		all = append(all, w.submit(needing([]string{"a", "b", "", "a"}[i%4]), withKey(fmt.Sprint(i%3)), withPriority(4+i%2)))
	}
	for range 2 {
		positions := w.positions(all)
		for want, id := range claimedIDs(w.claim(queue, len(all)/2)) {
			wantEqual(w, "the position of the job claimed next", positions[id], want)
		}
	}
}

func roomHeldPosition(w *harness) {
	w.holdBacklog()
	var all []job.ID
	for _, j := range w.listAll(stateOf(mine, job.Queued)) {
		all = append(all, j.ID)
	}
	positions := w.positions(all)
	for want, id := range claimedIDs(w.claim(queue, len(all))) {
		// The one turn that the key saved is not counted.
		if got := positions[id]; got < want-1 || got > want+1 {
			w.Fatalf("the position of the job claimed after %d others is %d", want, got)
		}
	}
}

func roomRepeated(w *harness) {
	w.submitMany(2, needing("m"))
	c := w.newClaim(queue, 1)
	w.do(c)
	again := &store.Claim{Queue: queue, Worker: "worker", LeaseFor: leaseFor, Tokens: c.Tokens}
	w.room = map[string]int{"m": 0}
	w.do(again)
	w.room = nil
	w.wantClaimed("again", claimedIDs(again.Claimed), c.Claimed[0].Job.ID)
}
