package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// keyRoomRules are the rules of keys with a limit whose jobs need several resources.
func keyRoomRules() []rule {
	return []rule{
		{"a job without room takes no place of its key's other jobs", keyRoomFree},
		{"a claim parks the jobs of a key at its limit that it finds", keyRoomClaim},
		{"a place that becomes free is free for one job of each resource", keyRoomUnparks},
		{"of the jobs that a free place queues, the one that became ready first is the first", keyRoomFirst},
		{"a due queues parked jobs of every resource when their limit was raised", keyRoomRaised},
		{"a job that is parked again returns to its place", keyRoomOrder},
		{"a parked job does not wait for ever behind urgent ones", keyRoomNoStarving},
		{"a job that is parked again uses no turn of its key", keyRoomTurns},
		{"submits with tokens and groups count by key and resource", keyRoomLeased},
		{"a retried job and a job that becomes due count by key and resource", keyRoomRequeued},
		{"a cancelled, deleted or expired job gives its place to a job of its resource", keyRoomEnds},
		{"keys with several resources hold after a reopening", long(keyRoomReopened)},
		{"a suspect is parked and queued with its resource", keyRoomSuspect},
	}
}

// none is a room without room for the resources a and b.
var none = map[string]int{"a": 0, "b": 0}

func (w *harness) submitNeeding(resources ...string) (ids []job.ID) {
	w.Helper()
	for _, r := range resources {
		ids = append(ids, w.submit(needing(r)))
	}
	return ids
}

func keyRoomFree(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1, KeyWaiting: 6})
	a := w.submitNeeding("a", "a", "a")
	b, plain := w.submitNeeding("b")[0], w.submitMany(2)
	w.wantStates("at first", job.Queued, a[0], b, plain[0])
	w.wantStates("beyond the limit", job.Parked, a[1], a[2], plain[1])
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 3, Parked: 3})
	w.mustRefuse(job.KeyFull, w.newSubmit(needing("c")))
	w.wantClaimed("without room for a", w.claimWith(map[string]int{"a": 0}, 1), b)
	w.wantClaimed("while it runs", w.claimWith(nil, 9))
}

func keyRoomClaim(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 2})
	all := w.submitNeeding("a", "b", "a", "b", "c")
	w.wantStates("at first", job.Queued, all...)
	other := w.submit(withKey("other"))
	claim := w.newClaim(queue, 9)
	b := w.do(claim)
	w.wantClaimed("together", claimedIDs(claim.Claimed), all[0], other, all[1])
	w.wantStates("found by the claim", job.Parked, all[2:]...)
	var moved []job.ID
	for _, m := range b.Moved {
		moved = append(moved, m.ID)
	}
	slices.SortFunc(moved, func(a, b job.ID) int { return slices.Compare(a[:], b[:]) })
	wantEqual(w, "the jobs that the batch moved", fmt.Sprint(moved), fmt.Sprint(all[2:]))
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Running: 3, Parked: 3})
	end := w.newClaim(queue, 9)
	w.do(newFinish(claim.Claimed[0].Lease(), job.Succeeded), end)
	w.wantClaimed("after an end", claimedIDs(end.Claimed), all[2])
}

func keyRoomUnparks(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	first := w.running()
	b, a := w.submitNeeding("b"), w.submitNeeding("a", "a")
	b = append(b, w.submit(needing("b")))
	w.wantStates("while one runs", job.Parked, append(a, b...)...)
	w.do(newFinish(first.Lease(), job.Succeeded))
	w.wantStates("after the end", job.Queued, a[0], b[0])
	w.wantStates("after the end", job.Parked, a[1], b[1])
	w.wantClaimed("without room for a", w.claimWith(map[string]int{"a": 0}, 9), b[0])
	w.wantClaimed("while it runs", w.claimWith(nil, 9))
	w.wantStates("while it runs", job.Parked, a[0])
	w.do(newFinish(w.leaseOf(b[0]), job.Queued))
	w.wantStates("after a release", job.Queued, a[0], b[0])
	w.wantStates("after a release", job.Parked, a[1], b[1])
	w.claimWith(map[string]int{"a": 0}, 9)
	w.do(newFinish(w.leaseOf(b[0]), job.Scheduled))
	w.wantStates("after a failure", job.Queued, a[0], b[1])
	w.wantStates("after a failure", job.Parked, a[1])
	w.claimWith(nil, 9)
	end := w.newClaim(queue, 1)
	w.do(newFinish(w.leaseOf(a[0]), job.Succeeded), end)
	w.wantClaimed("of those that became ready in the order a, b", claimedIDs(end.Claimed), a[1])
}

func keyRoomFirst(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	late := w.submit(needing("a"))
	w.do(newCancel(late))
	running := w.running()
	var parked []job.ID
	for _, resource := range []string{"b", "", "c"} {
		parked = append(parked, w.submit(needing(resource)))
		w.advance(time.Minute)
	}
	w.do(newRetry(late)) // the oldest job becomes ready last
	for i, id := range append(parked, late) {
		w.do(newFinish(running.Lease(), job.Succeeded))
		running = w.claimOne(queue)
		wantEqual(w, fmt.Sprint("the job claimed as number ", i), running.Job.ID, id)
	}
}

// leaseOf returns the lease of a running job.
func (w *harness) leaseOf(id job.ID) job.Lease {
	w.Helper()
	for _, r := range w.listRunning(store.AllRunning) {
		if r.Job.ID == id {
			return job.Lease{Job: id, Token: r.Token}
		}
	}
	w.Fatalf("a job that should run does not")
	return job.Lease{}
}

func keyRoomRaised(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	all := w.submitNeeding("a", "a", "a", "b", "b", "b", "", "", "")
	w.wantStates("at first", job.Queued, all[0], all[3], all[6])
	w.setLimits(queue, job.Limits{KeyRunning: 2})
	due := &store.Due{Limit: 2}
	w.do(due)
	wantEqual(w, "the jobs made ready by a due of two", due.Ready, 2)
	wantEqual(w, "whether more are left", due.More, true)
	due = newDue()
	w.do(due)
	wantEqual(w, "the jobs made ready by the next one", due.Ready, 1)
	w.wantStates("after the dues", job.Queued, all[0], all[1], all[3], all[4], all[6], all[7])
	w.wantStates("after the dues", job.Parked, all[2], all[5], all[8])
	w.limits = nil
	due = newDue()
	w.do(due)
	wantEqual(w, "the jobs made ready without a limit", due.Ready, 3)
}

func keyRoomOrder(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	var a []job.ID
	b := w.running(needing("b"))
	for range 3 {
		a = append(a, w.submit(needing("a")))
		w.advance(2 * time.Hour)
	}
	// Each time the first one of a becomes queued, and is parked again by a claim.
	for range 4 {
		next := w.newClaim(queue, 9)
		w.room = none
		w.do(newFinish(b.Lease(), job.Succeeded), w.newSubmit(needing("c")), next)
		w.room = nil
		wantEqual(w, "the jobs claimed of c", len(next.Claimed), 1)
		w.wantStates("while c runs", job.Queued, a[0])
		w.wantClaimed("while c runs", w.claimWith(nil, 9))
		w.wantStates("found by a claim", job.Parked, a...)
		b = &next.Claimed[0]
	}
	urgent := w.submit(needing("a"), withPriority(1))
	a = slices.Insert(a, 2, urgent) // four hours ahead: it became ready two hours after the one behind it
	for i := range a {
		w.do(newFinish(b.Lease(), job.Succeeded))
		b = w.claimOne(queue)
		wantEqual(w, fmt.Sprint("the job claimed as number ", i), b.Job.ID, a[i])
	}
}

func keyRoomNoStarving(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	running := w.running()
	low := w.submit(withPriority(9))
	for range 3 * 24 {
		w.submit(withPriority(1))
		w.advance(day / 24)
		w.do(newFinish(running.Lease(), job.Succeeded))
		if running = w.claimOne(queue); running.Job.ID == low {
			return
		}
		w.submit(withPriority(1))
	}
	w.Errorf("a job of low priority waited for three days")
}

func keyRoomTurns(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	all := w.submitNeeding("a", "b", "c", "d")
	other := w.submitMany(9, withKey(""), needing("e")) // no limit applies to this key
	w.wantClaimed("without room for e", w.claimWith(map[string]int{"e": 0}, 9), all[0])
	w.wantStates("found by the claim", job.Parked, all[1:]...)
	w.do(newFinish(w.leaseOf(all[0]), job.Succeeded))
	w.wantClaimed("in turn", w.claimWith(nil, 2), other[0], all[1])
}

func keyRoomLeased(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1, KeyWaiting: 1})
	pair := func(second string) []*store.Submit {
		return []*store.Submit{w.newSubmit(needing("a")), w.newSubmit(needing(second), leasedAs(w.token()))}
	}
	same := pair("a")
	w.try(grouped(same...)...)
	w.wantCode(job.BatchRefused, same[0].Err)
	w.wantCode(job.KeyFull, same[1].Err)
	three := []*store.Submit{w.newSubmit(needing("a"), leasedAs(w.token())), w.newSubmit(needing("b"), leasedAs(w.token())), w.newSubmit(needing("c"), leasedAs(w.token()))}
	w.try(grouped(three...)...) // one runs, one is parked
	w.wantCode(job.KeyFull, three[2].Err)
	different := pair("b")
	w.do(grouped(different...)...)
	wantEqual(w, "the first one's state", different[0].Job.State, job.Queued)
	wantEqual(w, "the second one's state", different[1].Job.State, job.Running)
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	late := w.newSubmit(needing("c"), leasedAs(w.token()))
	w.do(late)
	wantEqual(w, "the state of another while it runs", late.Job.State, job.Parked)
}

func keyRoomRequeued(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	a, b := w.submit(needing("a")), w.submit(needing("b"))
	w.do(newCancel(b))
	late := w.submit(needing("c"), delayed(backoff))
	again := w.submit(needing("a"), delayed(backoff))
	w.do(newRetry(b))
	w.advance(2 * backoff)
	w.do(newDue())
	w.wantStates("behind a job of another resource", job.Queued, a, b, late)
	w.wantStates("behind a job of its resource", job.Parked, again)
}

func keyRoomEnds(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	for name, end := range map[string]func(id job.ID){
		"a cancel": func(id job.ID) { w.do(newCancel(id)) },
		"a delete": func(id job.ID) { w.do(newDelete(id)) },
		"expiry":   func(job.ID) { w.advance(2 * leaseFor); w.do(newDue()) },
	} {
		first := w.submit(needing("a"), withQueueTimeout(leaseFor))
		b, a := w.submitNeeding("b", "b"), w.submitNeeding("a", "a")
		end(first)
		w.wantStates("after "+name, job.Queued, a[0], b[0])
		w.wantStates("after "+name, job.Parked, a[1], b[1])
		w.do(newDelete(a[1]), newDelete(b[1]))
		w.do(newDelete(a[0]), newDelete(b[0]))
		w.checkCounts()
	}
}

func keyRoomReopened(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	running := w.running()
	elsewhere := withKey("a longer key")
	a, b := w.submitNeeding("a", "a"), w.submitNeeding("b", "b")
	c := []job.ID{w.submit(elsewhere, needing("c")), w.submit(elsewhere, needing("c"))}
	d := w.submit(elsewhere, needing("d"))
	w.reopen()
	w.wantStates("opened again", job.Parked, w.submit(elsewhere, needing("d")))
	w.wantStates("opened again", job.Queued, c[0], d, w.submit(elsewhere))
	w.do(newFinish(running.Lease(), job.Succeeded))
	w.wantStates("opened again", job.Queued, a[0], b[0], c[0], d)
	w.wantStates("opened again", job.Parked, a[1], b[1], c[1])
	w.do(newCancel(c[0]))
	w.wantStates("after a cancel", job.Queued, c[1])
	w.reopen()
	w.limits = nil
	due := newDue()
	w.do(due)
	wantEqual(w, "the jobs made ready without a limit", due.Ready, 3)
	wantEqual(w, "the jobs claimed", len(w.claim(queue, 20)), 8)
}

func keyRoomSuspect(w *harness) {
	both := w.newSuspects(queue, 2, needing("b"))
	c, second := w.claimOne(queue), both[1]
	if c.Job.ID == second {
		second = both[0]
	}
	w.wantClaimed("while one runs", w.claimWith(nil, 9))
	w.wantStates("while one runs", job.Parked, second)
	w.reopen()
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.wantStates("when it has ended", job.Queued, second)
	wantEqual(w, "its resource", w.job(second).Resource, "b")
	w.wantClaimed("without room", w.claimWith(none, 9))
	w.wantClaimed("with room", w.claimWith(map[string]int{"b": 1}, 9), second)
}

func sharedKeyRoom(w *harness) {
	const most, each = 1, 12
	w.setLimits(queue, job.Limits{KeyRunning: most})
	for range each {
		for _, key := range []string{"k", "l"} {
			w.submit(needing("a"), withKey(key))
			w.submit(needing("b"), withKey(key))
		}
	}
	d := &drainState{running: map[string]int{}, times: map[job.ID]int{}}
	// The store n has room for one resource only.
	rooms := []map[string]int{{"b": 0}, {"a": 0}}
	step := func(n int) error {
		b := batchOf(w.newClaim(queue, 2))
		b.Room = rooms[n%2]
		if err := w.commitAt(n, b); err != nil {
			return err
		}
		var ends []any
		for _, c := range b.Claims[0].Claimed {
			if err := d.begin(c.Job.Key, c.Job.ID, most); err != nil {
				return err
			}
			ends = append(ends, newFinish(c.Lease(), job.Succeeded))
		}
		d.end(b, byKey)
		_, err := w.tryAt(n, ends...)
		d.ends(len(ends))
		return err
	}
	for d.hasMore(2*each) && d.tries < 10*each {
		if err := step(1); err != nil {
			w.Fatalf("%v", err)
		}
	}
	wantEqual(w, "the jobs that ended while those of the other resource had no room", d.ended, 2*each)
	w.atEveryStore(func(n int) error {
		for d.hasMore(4 * each) {
			if err := step(n); err != nil {
				return err
			}
		}
		return nil
	})
	wantEqual(w, "the jobs that ended", d.ended, 4*each)
}
