package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func limitRules() []rule {
	return []rule{
		{"a ready job is parked when its key is at its limit of running jobs", limitParks},
		{"a key at its limit does not delay other keys", limitOtherKeys},
		{"the limits of keys do not apply to jobs without a key", limitWithoutKey},
		{"every op that removes a job of a full key queues its next parked job", limitUnparks},
		{"parked jobs are queued by priority, then in the order of their arrival", limitOrder},
		{"a released job keeps its place before parked ones", limitReleased},
		{"a submit with a token of a full key is parked", limitOfLeased},
		{"a job of a full key that becomes due or is retried is parked", limitOfRequeued},
		{"a parked job can be cancelled and deleted, and expires", limitParkedEnd},
		{"a claim gets a job that its own batch unparked", limitThenClaim},
		{"a due queues parked jobs when their limit was raised or removed", limitRaised},
		{"a lowered limit applies to the next claim", limitLowered},
		{"parked jobs are queued after a reopening too", long(limitReopened)},
		{"the running jobs of a queue never exceed its limit", limitRunning},
	}
}

// setLimits sets the limits of a queue for the next batches.
func (w *harness) setLimits(q string, l job.Limits) {
	if w.limits == nil {
		w.limits = map[string]job.Limits{}
	}
	w.limits[q] = l
}

// wantStates checks that each job is in the state.
func (w *harness) wantStates(when string, want job.State, jobs ...job.ID) {
	w.Helper()
	for i, id := range jobs {
		if got := w.job(id).State; got != want {
			w.Errorf("%s: job %d is %s, want %s", when, i, got, want)
		}
	}
}

func limitWithoutKey(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1, KeyWaiting: 1})
	w.wantStates("at first", job.Queued, w.submitMany(3, withKey(""))...)
	s := w.newSubmit(withKey(""), leasedAs(w.token()))
	w.do(s)
	wantEqual(w, "the state of a submit with a token", s.Job.State, job.Running)
	wantEqual(w, "the jobs claimed", len(w.claim(queue, 9)), 3)
	w.submit()
	w.mustRefuse(job.KeyFull, w.newSubmit())
}

func limitParks(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 2})
	all := w.submitMany(4, withKey("a"))
	s := w.newSubmit(withKey("a"))
	b := w.do(s)
	wantEqual(w, "the state that the submit answers", s.Job.State, job.Parked)
	w.wantStates("at first", job.Queued, all[:2]...)
	w.wantStates("at first", job.Parked, all[2], all[3], s.Job.ID)
	w.wantTime("RunAt of a parked job", s.Job.RunAt, w.now())
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 2, Parked: 3})
	wantEqual(w, "the counts answered", b.Counts[queue], job.Counts{Queued: 2, Parked: 3})
	wantEqual(w, "the position of a parked job", w.position(all[2]), 0)
	wantEqual(w, "the jobs claimed of a key with a limit of two", len(w.claim(queue, 9)), 2)
	w.wantStates("with two that run", job.Parked, all[2], all[3], s.Job.ID)
	wantEqual(w, "the same key's job in another queue", w.job(w.submit(withKey("a"), inQueue("other"))).State, job.Queued)
}

func limitOtherKeys(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	w.submitMany(300, withKey("busy"))
	var others []job.ID
	for i := range 20 {
		others = append(others, w.submit(withKey(fmt.Sprint(i))))
	}
	first := w.claimOne(queue)
	wantEqual(w, "the first key", first.Job.Key, "busy")
	got := claimedIDs(w.claim(queue, 20))
	wantEqual(w, "the jobs claimed besides", fmt.Sprint(got), fmt.Sprint(others))
	for range 5 { // the full key takes turns with the others
		w.submitMany(3, withKey("late"))
		w.do(newFinish(first.Lease(), job.Succeeded))
		pair := w.claim(queue, 2)
		if len(pair) != 2 || pair[0].Job.Key == pair[1].Job.Key {
			w.Fatalf("two keys with jobs did not take turns")
		}
		for i := range pair {
			if pair[i].Job.Key == "busy" {
				first = &pair[i]
			} else {
				w.do(newFinish(pair[i].Lease(), job.Succeeded))
			}
		}
	}
}

func limitUnparks(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	running := func(w *harness) job.Lease { return w.claimOne(queue).Lease() }
	for name, takeAway := range map[string]func(w *harness, first job.ID){
		"success":       func(w *harness, _ job.ID) { w.do(newFinish(running(w), job.Succeeded)) },
		"failure":       func(w *harness, _ job.ID) { w.do(newFinish(running(w), job.Failed)) },
		"backoff":       func(w *harness, _ job.ID) { w.do(newFinish(running(w), job.Scheduled)) },
		"sweep":         func(w *harness, _ job.ID) { l := running(w); w.advance(time.Hour); w.do(newLapse(l, job.Failed)) },
		"cancel queued": func(w *harness, first job.ID) { w.do(newCancel(first)) },
		"cancel running": func(w *harness, first job.ID) {
			l := running(w)
			w.do(newCancel(first))
			w.do(newFinish(l, job.Succeeded))
		},
		"delete queued": func(w *harness, first job.ID) { w.do(newDelete(first)) },
		"delete running": func(w *harness, first job.ID) {
			l := running(w)
			w.do(newDelete(first), newFinish(l, job.Queued))
		},
		"expiry": func(w *harness, _ job.ID) { w.advance(2 * time.Minute); w.do(newDue()) },
	} {
		first := w.submit(withQueueTimeout(time.Minute))
		rest := w.submitMany(3)
		takeAway(w, first)
		if got := w.job(rest[0]).State; got != job.Queued {
			w.Errorf("after %s the next job of the key is %s", name, got)
		}
		w.wantStates("after "+name, job.Parked, rest[1:]...)
		w.try(newDelete(first), newDelete(rest[2]), newDelete(rest[1]), newDelete(rest[0]))
		w.checkCounts()
	}
}

func limitOrder(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	last := w.claimOneOf(w.submit())
	var want []job.ID
	for _, p := range []int{9, 5, 1} {
		want = append(w.submitMany(3, withPriority(p)), want...)
	}
	other := w.submitMany(9, withKey("other")) // of another key at its limit
	for i, id := range want {
		if i == len(want)/2 {
			w.reopen()
		}
		w.do(newFinish(last.Lease(), job.Succeeded))
		last = w.claimOneOf(id)
	}
	w.wantStates("the other key's", job.Parked, other[1:]...)
}

// claimOneOf claims until it gets the job, and releases the others.
func (w *harness) claimOneOf(id job.ID) *job.Claimed {
	w.Helper()
	var found *job.Claimed
	claimed := w.claim(queue, 100)
	for i := range claimed {
		if claimed[i].Job.ID == id {
			found = &claimed[i]
		} else {
			w.do(newFinish(claimed[i].Lease(), job.Queued))
		}
	}
	if found == nil {
		w.Fatalf("a job that should be queued was not claimed")
	}
	return found
}

func limitReleased(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	first, rest := w.submit(), w.submitMany(2)
	c := w.claimOne(queue)
	w.do(newFinish(c.Lease(), job.Queued))
	w.wantStates("handed back", job.Queued, first)
	w.wantStates("handed back", job.Parked, rest...)
	wantEqual(w, "the job claimed", w.claimOne(queue).Job.ID, first)
}

func limitOfLeased(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	one, two := w.newSubmit(leasedAs(w.token())), w.newSubmit(leasedAs(w.token()))
	w.do(one, two)
	wantEqual(w, "the first one's state", one.Job.State, job.Running)
	wantEqual(w, "the second one's state", two.Job.State, job.Parked)
	wantEqual(w, "the second one's attempts", two.Job.Attempt, 0)
	wantEqual(w, "the running jobs", len(w.listRunning(store.AllRunning)), 1)
	lease := job.Lease{Job: two.Job.ID, Token: two.Token}
	w.mustRefuse(job.LeaseLost, newRenew(lease, leaseFor), newFinish(lease, job.Succeeded))
	w.do(newFinish(job.Lease{Job: one.Job.ID, Token: one.Token}, job.Succeeded))
	wantEqual(w, "the job claimed", w.claimOne(queue).Job.ID, two.Job.ID)
}

func limitOfRequeued(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	late, cancelled := w.submit(delayed(time.Minute)), w.submit()
	w.do(newCancel(cancelled))
	w.submit()
	retry := newRetry(cancelled)
	w.do(retry)
	wantEqual(w, "the state that the retry answers", retry.Job.State, job.Parked)
	w.advance(2 * time.Minute)
	due := newDue()
	w.do(due)
	wantEqual(w, "the jobs made ready", due.Ready, 1)
	w.wantStates("while another job of the key is queued", job.Parked, late, cancelled)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 1, Parked: 2, Cancelled: 1, Retried: 1})
}

func limitParkedEnd(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	first := w.submit()
	cancelled, deleted, expiring, last := w.submit(), w.submit(), w.submit(withQueueTimeout(time.Minute)), w.submit()
	op := newCancel(cancelled)
	w.do(op, newDelete(deleted))
	wantEqual(w, "whether the cancel ended it", op.Ended, true)
	w.wantGone(mine, deleted)
	w.advance(2 * time.Minute)
	w.do(newDue())
	w.wantStates("too late", job.Expired, expiring)
	w.wantStates("still", job.Queued, first)
	w.wantStates("still", job.Parked, last)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 1, Parked: 1, Cancelled: 2, Expired: 1})
}

func limitThenClaim(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	c := w.claimOneOf(w.submit())
	next := w.submit()
	claim := w.newClaim(queue, 3)
	w.do(newFinish(c.Lease(), job.Succeeded), claim)
	if len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != next {
		w.Errorf("the unparked job was not claimed: got %d", len(claim.Claimed))
	}
}

func limitRaised(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	a, b := w.submitMany(6, withKey("a")), w.submitMany(6, withKey("b"))
	due := newDue()
	w.do(due)
	wantEqual(w, "the jobs made ready with the same limit", due.Ready, 0)

	w.setLimits(queue, job.Limits{KeyRunning: 3})
	due = newDue()
	w.do(due)
	wantEqual(w, "the jobs made ready with a higher one", due.Ready, 4)
	w.wantStates("of three", job.Queued, append(a[:3:3], b[:3]...)...)
	w.wantStates("of three", job.Parked, append(a[3:], b[3:]...)...)

	w.limits = nil
	ready, more := 0, true
	for rounds := 0; more && rounds < 10; rounds++ {
		due := &store.Due{Limit: 4}
		w.do(due)
		if due.Ready > 4 {
			w.Errorf("a due of 4 made %d jobs ready", due.Ready)
		}
		ready, more = ready+due.Ready, due.More
	}
	wantEqual(w, "the jobs made ready without a limit", ready, 6)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 12})
}

func limitLowered(w *harness) {
	all, other := w.submitMany(5, withKey("a")), w.submit(withKey("b"))
	w.setLimits(queue, job.Limits{KeyRunning: 2})
	parked := w.submit(withKey("a"))
	w.wantStates("submitted beyond the limit", job.Parked, parked)
	c := w.claim(queue, 9)
	got := claimedIDs(c)
	if len(got) != 3 || !slices.Contains(got, other) || !slices.Contains(got, all[0]) || !slices.Contains(got, all[1]) {
		w.Fatalf("with two that may run of one key %d jobs were claimed", len(got))
	}
	w.wantStates("beyond the limit", job.Parked, append(all[2:], parked)...)
	for _, next := range append(all[2:], parked) {
		for i := range c {
			w.do(newFinish(c[i].Lease(), job.Succeeded))
		}
		if c = w.claim(queue, 1); len(c) != 1 || c[0].Job.ID != next {
			w.Fatalf("a job that was queued before the limit does not go before the others")
		}
	}
}

func limitReopened(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 2})
	scheduled := w.submit(delayed(time.Minute))
	all := w.submitMany(6)
	c := w.claimOne(queue)
	w.reopen()
	w.wantStates("opened again", job.Parked, w.submit())
	w.advance(2 * time.Minute)
	w.do(newDue())
	w.wantStates("opened again", job.Parked, scheduled)
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.wantStates("opened again", job.Queued, all[1], all[2])
	w.wantStates("opened again", job.Parked, all[3:]...)
	w.limits = nil
	w.reopen()
	due := newDue()
	w.do(due)
	wantEqual(w, "the jobs made ready without a limit", due.Ready, 5)
}

func limitRunning(w *harness) {
	w.setLimits(queue, job.Limits{Running: 3})
	w.submitMany(10, withKey("a"))
	one, two := w.newClaim(queue, 2), w.newClaim(queue, 5)
	w.do(one, two)
	wantEqual(w, "the jobs claimed", len(one.Claimed)+len(two.Claimed), 3)
	s := w.newSubmit(leasedAs(w.token()), withKey("b"))
	w.do(s)
	wantEqual(w, "the state of a submit with a token", s.Job.State, job.Queued)
	wantEqual(w, "the jobs claimed beyond", len(w.claim(queue, 5)), 0)
	claim := w.newClaim(queue, 5)
	w.do(newFinish(one.Claimed[0].Lease(), job.Succeeded), newFinish(one.Claimed[1].Lease(), job.Queued), claim)
	wantEqual(w, "the jobs claimed in place of two", len(claim.Claimed), 2)
	w.reopen()
	wantEqual(w, "the jobs claimed beyond", len(w.claim(queue, 5)), 0)
	w.setLimits(queue, job.Limits{Running: 1})
	wantEqual(w, "the jobs claimed beyond a lower limit", len(w.claim(queue, 5)), 0)
	wantEqual(w, "the jobs claimed of another queue", len(w.claim("other", 5)), 0)
	w.limits = nil
	wantEqual(w, "the jobs claimed without a limit", len(w.claim(queue, 50)), 7)
}
