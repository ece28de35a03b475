package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// maxAhead is the largest number of jobs of each key that may overtake a job of the next lower
// priority. Priority is a head start of that many turns, so that no job starves.
const maxAhead = 1500

func orderRules() []rule {
	return []rule{
		{"jobs of one key are claimed in the order of their arrival", orderInKey},
		{"a key with one job does not wait for a key with a hundred", orderSingleJob},
		{"keys take turns", orderTurns},
		{"priority 1 goes before 5 and 5 before 9", orderPriority},
		{"a job of low priority is claimed even while urgent jobs keep arriving", long(orderNoStarving)},
		{"a job of low priority is claimed even while new keys keep arriving", long(orderNoStarvingByKeys)},
		{"the second job of a key is claimed even while new keys keep arriving", orderSecondJob},
		{"cancelled jobs cost their key no turns once the queue was empty", orderAfterCancel},
		{"a position is the number of jobs that are claimed before", orderPositions},
		{"a position is counted up to a bound", orderPositionBound},
		{"the oldest job is the one that became ready first, parked or not, to the second", orderOldest},
		{"the order survives a reopening", orderReopened},
	}
}

func orderInKey(w *harness) {
	want := w.submitMany(20)
	for _, id := range want {
		wantEqual(w, "the next job", w.claimOne(queue).Job.ID, id)
	}
}

func orderSingleJob(w *harness) {
	w.submitMany(100, withKey("busy"))
	single := w.submit(withKey("single"))
	first := claimedIDs(w.claim(queue, 3))
	if !slices.Contains(first, single) {
		w.Errorf("the only job of its key was not among the first three of 101")
	}
	late := w.submit(withKey("late"))
	if !slices.Contains(claimedIDs(w.claim(queue, 3)), late) {
		w.Errorf("a later job was not among the next three")
	}
}

func orderTurns(w *harness) {
	const keys, each = 10, 10
	for k := range keys {
		w.submitMany(each, withKey(fmt.Sprint(k)))
	}
	claimed := map[string]int{}
	for n := range keys * each {
		claimed[w.claimOne(queue).Job.Key]++
		for k := range keys {
			if got := claimed[fmt.Sprint(k)]; got > n/keys+2 {
				w.Fatalf("of the first %d jobs %d were of one key of %d", n+1, got, keys)
			}
		}
	}
}

func orderPriority(w *harness) {
	for _, keys := range [][3]string{{"same", "same", "same"}, {"a", "b", "c"}} {
		low := w.submit(withPriority(9), withKey(keys[0]))
		middle := w.submit(withPriority(5), withKey(keys[1]))
		high := w.submit(withPriority(1), withKey(keys[2]))
		for _, want := range []job.ID{high, middle, low} {
			wantEqual(w, "the next job", w.claimOne(queue).Job.ID, want)
		}
	}
}

// overtake adds jobs made by more and claims as many, until it gets the waiting job. It returns
// the number of claims before, or -1 when it exceeds the bound.
func (w *harness) overtake(waiting job.ID, some, bound int, more func(n int) []any) int {
	w.do(more(some)...)
	for n := 0; n < bound; n += some {
		claim := w.newClaim(queue, some)
		w.do(append(more(some), claim)...)
		for i, c := range claim.Claimed {
			if c.Job.ID == waiting {
				return n + i
			}
		}
	}
	return -1
}

// moreKeys makes submits, each with a new key.
func (w *harness) moreKeys(n int) (ops []any) {
	for range n {
		s := w.newSubmit()
		s.Job.Key = s.Job.ID.String()
		ops = append(ops, s)
	}
	return ops
}

func orderNoStarving(w *harness) {
	low := w.submit(withPriority(6), withKey("low"))
	urgent := func(n int) (ops []any) {
		for range n {
			ops = append(ops, w.newSubmit(withKey("urgent")))
		}
		return ops
	}
	if w.overtake(low, 250, maxAhead, urgent) < 0 {
		w.Errorf("a job one step less urgent was overtaken by more than %d of one key", maxAhead)
	}
}

func orderNoStarvingByKeys(w *harness) {
	low := w.submit(withPriority(6), withKey("low"))
	if w.overtake(low, 1, 3*maxAhead, w.moreKeys) < 0 {
		w.Errorf("a job one step less urgent was overtaken by more than %d for each of the three keys that waited", maxAhead)
	}
}

func orderSecondJob(w *harness) {
	second := w.submitMany(2, withKey("two"))[1]
	if w.overtake(second, 50, 1000, w.moreKeys) < 0 {
		w.Errorf("with a hundred keys waiting the second job of a key was overtaken by more than a thousand")
	}
}

func orderAfterCancel(w *harness) {
	for _, id := range w.submitMany(50, withKey("a")) {
		w.do(newCancel(id))
	}
	wantEqual(w, "the jobs left to claim", len(w.claim(queue, 1)), 0)
	w.submitMany(50, withKey("b"))
	single := w.submit(withKey("a"))
	if !slices.Contains(claimedIDs(w.claim(queue, 3)), single) {
		w.Errorf("cancelled jobs cost their key a turn")
	}
}

// newMixedQueue fills the queue with jobs of several keys and priorities, some of them claimed.
func (w *harness) newMixedQueue() (waiting []job.ID) {
	for i := range 60 {
		w.submit(withKey(fmt.Sprint(i%7%3)), withPriority([]int{5, 5, 1, 9, 5, 4}[i%6]))
		if i%5 == 4 {
			w.claimOne(queue)
		}
	}
	for _, j := range w.listAll(stateOf(mine, job.Queued)) {
		waiting = append(waiting, j.ID)
	}
	return waiting
}

func orderPositions(w *harness) {
	waiting := w.newMixedQueue()
	positions := map[job.ID]int{}
	for _, id := range waiting {
		positions[id] = w.position(id)
	}
	for want, c := range w.claim(queue, len(waiting)) {
		wantEqual(w, "the position of the job claimed next", positions[c.Job.ID], want)
		wantEqual(w, "the position of a running job", w.position(c.Job.ID), 0)
	}
	wantEqual(w, "the position of no job", w.position(w.id()), 0)
}

func orderPositionBound(w *harness) {
	all := w.submitMany(30)
	for i, id := range all {
		got, err := w.store.Position(w.ctx, mine, id, 10)
		if err != nil || got != min(i, 10) {
			w.Errorf("the position of job %d, up to 10, is %d, %v", i, got, err)
		}
	}
}

// oldestWithin is the tolerance of store.UpkeepReader.OldestQueued.
const oldestWithin = 2 * time.Second

func orderOldest(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 2})
	check := func(q string, want time.Time) {
		w.Helper()
		since, err := w.store.OldestQueued(w.ctx, q)
		if err != nil || since.IsZero() != want.IsZero() || since.After(want) || want.Sub(since) > oldestWithin {
			w.Errorf("the longest waiting job is ready since %v, want %v: %v", since, want, err)
		}
	}
	check(queue, time.Time{})
	first := w.now()
	ready := w.submit()
	w.submit(delayed(time.Hour), withKey("late"))
	check(queue, first)
	w.advance(time.Minute)
	second := w.now()
	urgent := w.submit(withPriority(1))
	parked := w.submit(withPriority(9))
	w.submit(inQueue("other"))
	w.wantStates("beyond the limit", job.Parked, parked)
	check(queue, first)
	w.advance(time.Minute)
	c := w.claimOne(queue)
	wantEqual(w, "the next job", c.Job.ID, urgent)
	check(queue, first) // the next job is not the oldest
	w.do(newCancel(ready))
	check(queue, second)
	w.reopen()
	check(queue, second)
	w.do(newDelete(parked))
	check(queue, time.Time{})
	w.do(newFinish(c.Lease(), job.Queued))
	check(queue, w.now())
	w.do(newCancel(urgent))
	at := w.now().Add(time.Hour - 2*time.Minute)
	w.advance(2 * time.Hour)
	w.do(newDue())
	check(queue, at) // the time when it became ready, not the time of the due
	check("other", second)
	check("no such queue", time.Time{})
}

func orderReopened(w *harness) {
	waiting := w.newMixedQueue()
	before := map[job.ID]int{}
	for _, id := range waiting {
		before[id] = w.position(id)
	}
	w.reopen()
	for want, c := range w.claim(queue, len(waiting)) {
		wantEqual(w, "the position before the reopen of the job claimed next", before[c.Job.ID], want)
	}
}
