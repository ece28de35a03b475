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
		{"the claims of a batch share the room of a resource", roomShared},
		{"a resource without an entry has no limit", roomUnlimited},
		{"tenants whose jobs have no room are passed, and keep their turns", roomTenants},
		{"a job has its resource after every way back to the queue", roomAfterRequeue},
		{"a parked job has its resource once it is queued", roomUnparked},
		{"resources hold after a reopening", long(roomReopened)},
		{"a position counts the jobs of every resource", roomPosition},
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

func roomPosition(w *harness) {
	w.submitMany(2, needing("a"))
	w.submitMany(2)
	w.submitMany(2, needing("b"))
	wantEqual(w, "the position", w.position(w.submit(needing("a"))), 6)
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
