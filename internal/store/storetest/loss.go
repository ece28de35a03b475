package storetest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func lossRules() []rule {
	return []rule{
		{"losses are counted, and an attempt that ends otherwise clears them", lossCounts},
		{"a loss that ends a job is counted", lossEnds},
		{"a retry counts losses from zero", lossRetried},
		{"one suspect at a time runs, over all queues", suspectsAlone},
		{"other jobs run at the same time as a suspect", suspectWithOthers},
		{"the next suspect runs in the batch that ends the previous one", suspectFollows},
		{"a cleared suspect does not wait for others", suspectCleared},
		{"a suspect that cannot run does not delay other suspects", suspectThatCannotRun},
		{"a parked suspect is due now while none runs", suspectIsDue},
		{"the limit of its key applies to a suspect", suspectLimited},
		{"suspects wait for each other after a reopening", long(suspectsReopened)},
		{"under any order of ends, pauses and starts at most one suspect runs and none is stuck", long(suspectsNeverStuck)},
	}
}

func lossCounts(w *harness) {
	c := w.running()
	check := func(when string, losses, cleared int) {
		w.Helper()
		j := w.job(c.Job.ID)
		wantEqual(w, "the losses after "+when, j.Losses, losses)
		wantEqual(w, "those that were cleared after "+when, j.Cleared, cleared)
	}
	again := func() *job.Claimed {
		w.Helper()
		w.advance(backoff + time.Second)
		w.do(newDue())
		return w.claimOne(queue)
	}
	w.do(newLoss(c.Lease()))
	check("a loss", 1, 0)
	wantEqual(w, "the attempts", w.job(c.Job.ID).Attempt, 1)
	c = again()
	wantEqual(w, "the losses of a claimed job", c.Job.Losses, 1)
	w.do(newFinish(c.Lease(), job.Scheduled))
	check("a failure", 1, 1)
	w.do(newLoss(again().Lease()))
	check("a second loss", 2, 1)
	w.reopen()
	check("a start", 2, 1)
	f := newFinish(again().Lease(), job.Queued)
	f.Refund = true
	w.do(f)
	check("a hand-back", 2, 2)
	w.do(newFinish(again().Lease(), job.Succeeded))
	check("a success", 2, 2)
	wantEqual(w, "the attempts", w.job(c.Job.ID).Attempt, 4)
}

func lossEnds(w *harness) {
	f := newFinish(w.running().Lease(), job.Failed)
	f.Lost = true
	w.do(f)
	wantEqual(w, "the losses", w.job(f.Lease.Job).Losses, 1)
}

func lossRetried(w *harness) {
	id := w.newSuspect(queue)
	w.do(newFinish(w.claimOne(queue).Lease(), job.Failed))
	w.do(newRetry(id))
	j := w.job(id)
	wantEqual(w, "the losses", j.Losses, 0)
	wantEqual(w, "those that were cleared", j.Cleared, 0)
}

// loseAll ends the jobs as lost and makes them ready again.
func (w *harness) loseAll(claimed []job.Claimed) {
	w.Helper()
	ops := make([]any, len(claimed))
	for i := range claimed {
		ops[i] = newLoss(claimed[i].Lease())
	}
	w.do(ops...)
	w.advance(backoff + time.Second)
	w.do(newDue())
}

// newSuspects makes n jobs of a queue that were lost twice. No other job is queued.
func (w *harness) newSuspects(q string, n int, edits ...func(*store.Submit)) []job.ID {
	w.Helper()
	ids := w.submitMany(n, append(edits, inQueue(q))...)
	for range 2 {
		w.loseAll(w.claim(q, n))
	}
	for _, id := range ids {
		if j := w.job(id); !j.Suspect() || j.State != job.Queued {
			w.Fatalf("a job that was lost twice is %s", text(j))
		}
	}
	return ids
}

func (w *harness) newSuspect(q string, edits ...func(*store.Submit)) job.ID {
	w.Helper()
	return w.newSuspects(q, 1, edits...)[0]
}

func suspectsAlone(w *harness) {
	here, there := w.newSuspects("a", 3), w.newSuspects("b", 1)
	first, other := w.newClaim("a", 9), w.newClaim("b", 9)
	w.do(first, other)
	wantEqual(w, "the suspects claimed of one queue", len(first.Claimed), 1)
	wantEqual(w, "the suspects claimed of the other", len(other.Claimed), 0)
	w.wantStates("while another suspect runs", job.Parked, append(here[1:], there...)...)
	wantEqual(w, "the counts", w.counts("a"), job.Counts{Running: 1, Parked: 2})
	scheduled := w.submit(inQueue("c"))
	w.loseAll(w.claim("c", 1))
	w.loseAll(w.claim("c", 1))
	w.wantStates("ready while another runs", job.Parked, scheduled)
	wantEqual(w, "the position of a parked suspect", w.position(scheduled), 0)
}

func suspectWithOthers(w *harness) {
	w.newSuspects(queue, 2)
	lost := w.submit()
	w.submit()
	wantEqual(w, "the jobs claimed", len(w.claim(queue, 9)), 3)
	wantEqual(w, "the state of a job that was not lost", w.job(lost).State, job.Running)
}

func suspectFollows(w *harness) {
	w.newSuspects("a", 4)
	w.newSuspects("b", 2)
	for left := 6; left > 0; left-- {
		one, two := w.newClaim("a", 9), w.newClaim("b", 9)
		if left == 6 {
			w.do(one, two)
		} else {
			running := w.listRunning(store.AllRunning)[0]
			end := newFinish(job.Lease{Job: running.Job.ID, Token: running.Token}, []job.State{job.Succeeded, job.Failed, job.Cancelled}[left%3])
			w.do(end, one, two)
		}
		for n := 0; len(one.Claimed)+len(two.Claimed) == 0; n++ { // the queue may get its turn a batch later
			if n == 2 {
				w.Fatalf("with %d suspects left none runs", left)
			}
			ready, _, _ := w.store.NextDue(w.ctx)
			w.wantTime("when the next suspect is due", ready, w.now())
			one, two = w.newClaim("a", 9), w.newClaim("b", 9)
			w.do(newDue(), one, two)
		}
		wantEqual(w, "the running jobs", len(w.listRunning(store.AllRunning)), 1)
	}
}

func suspectCleared(w *harness) {
	w.newSuspects(queue, 2)
	for _, to := range []job.State{job.Queued, job.Scheduled} {
		c := w.claimOne(queue)
		f := newFinish(c.Lease(), to)
		f.Refund = true
		w.do(f)
		j := w.job(c.Job.ID)
		wantEqual(w, "it is a suspect after its release", j.Suspect(), false)
		w.advance(backoff + time.Second)
		w.do(newDue())
	}
	wantEqual(w, "the jobs claimed", len(w.claim(queue, 9)), 2)
}

func suspectThatCannotRun(w *harness) {
	w.newSuspects("paused", 2)
	other := w.newSuspects("other", 1)
	w.do(newPause("paused", true))
	wantEqual(w, "the suspects claimed of a paused queue", len(w.claim("paused", 9)), 0)
	c := w.claimOne("other")
	wantEqual(w, "the suspect claimed at the same time", c.Job.ID, other[0])
	w.do(newPause("paused", false))
	wantEqual(w, "the suspects claimed while one runs", len(w.claim("paused", 9)), 0)
	w.do(newFinish(c.Lease(), job.Succeeded), newPause("paused", true))
	last := w.newSuspect("other")
	wantEqual(w, "the suspect claimed while another queue is paused", w.claimOne("other").Job.ID, last)
}

func suspectIsDue(w *harness) {
	all := w.newSuspects(queue, 3)
	c := w.claim(queue, 9)
	if ready, _, err := w.store.NextDue(w.ctx); err != nil || !ready.IsZero() {
		w.Errorf("while a suspect runs the others are due at %v, %v", ready, err)
	}
	w.do(newFinish(c[0].Lease(), job.Succeeded))
	w.do(newCancel(all[1]), newCancel(all[2]))
	w.do(newDue())
	if ready, _, err := w.store.NextDue(w.ctx); err != nil || !ready.IsZero() {
		w.Errorf("with no suspect left one is due at %v, %v", ready, err)
	}
	all = w.newSuspects(queue, 3)
	c = w.claim(queue, 9)
	w.do(newFinish(c[0].Lease(), job.Succeeded))
	w.do(newCancel(all[1])) // the suspect that was queued in its place
	for range 3 {
		if ready, _, err := w.store.NextDue(w.ctx); err != nil || !ready.IsZero() {
			w.wantTime("when the last suspect is due", ready, w.now())
			w.do(newDue())
		}
	}
	wantEqual(w, "the suspects claimed", len(w.claim(queue, 9)), 1)
}

func suspectLimited(w *harness) {
	w.newSuspects(queue, 2, withKey("k"))
	first := w.claimOne(queue)
	wantEqual(w, "the suspects claimed at the same time", len(w.claim(queue, 9)), 0)
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	other := w.submit(withKey("k"))
	w.do(newFinish(first.Lease(), job.Succeeded))
	for _, suspect := range []bool{false, true} {
		c := w.claim(queue, 9)
		if len(c) != 1 || c[0].Job.Suspect() != suspect || (c[0].Job.ID == other) == suspect {
			w.Fatalf("with one that may run of the key %d jobs were claimed: %+v", len(c), c)
		}
		w.do(newFinish(c[0].Lease(), job.Succeeded))
	}
}

func (w *harness) suspectsRunning() (n int) {
	for _, r := range w.listRunning(store.AllRunning) {
		if r.Job.Suspect() {
			n++
		}
	}
	return n
}

func suspectsReopened(w *harness) {
	all := w.newSuspects(queue, 3)
	c := w.claim(queue, 9)
	w.reopen()
	w.do(newDue())
	wantEqual(w, "the suspects claimed while one runs", len(w.claim(queue, 9)), 0)
	w.do(newLoss(c[0].Lease())) // like the first sweep after a crash
	w.reopen()
	w.do(newDue())
	next := w.claim(queue, 9)
	wantEqual(w, "the suspects claimed then", len(next), 1)
	wantEqual(w, "the one that is tried", next[0].Job.ID, all[1])
}

func suspectsNeverStuck(w *harness) {
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 12))
		queues := []string{fmt.Sprint("a", seed), fmt.Sprint("b", seed)}
		w.setLimits(queues[0], job.Limits{KeyRunning: 2, Running: 2})
		left := map[job.ID]bool{}
		for _, q := range queues {
			for _, id := range w.newSuspects(q, 2, withKey("k")) {
				left[id] = true
			}
			for range 3 {
				left[w.submit(inQueue(q), withKey("k"))] = true
			}
		}
		for range 60 {
			w.randomStep(random, queues, left)
			if n := w.suspectsRunning(); n > 1 {
				w.Fatalf("%d suspects run at a time", n)
			}
		}
		w.do(newPause(queues[0], false), newPause(queues[1], false))
		for range 200 { // now all of them end
			w.finishAll(left)
			w.advance(20 * time.Second)
			w.do(newDue(), w.newClaim(queues[0], 2), w.newClaim(queues[1], 2))
			w.do(newDue(), w.newClaim(queues[0], 2), w.newClaim(queues[1], 2))
		}
		for id := range left {
			w.Errorf("a job is stuck: %s", text(w.job(id)))
		}
	}
}

// randomStep does a random operation on suspects.
func (w *harness) randomStep(random *rand.Rand, queues []string, left map[job.ID]bool) {
	q := queues[random.IntN(len(queues))]
	running := w.listRunning(store.AllRunning)
	switch random.IntN(8) {
	case 0:
		w.do(newPause(q, random.IntN(2) == 0))
	case 1:
		w.reopen()
	case 2:
		w.advance(backoff + time.Second)
		w.do(newDue())
	case 3:
		for id := range left {
			if w.job(id).State == job.Queued {
				w.do(newCancel(id))
				delete(left, id)
				return
			}
		}
	case 4, 5:
		w.do(w.newClaim(q, 1+random.IntN(3)))
	default:
		if len(running) > 0 {
			r := running[random.IntN(len(running))]
			l := job.Lease{Job: r.Job.ID, Token: r.Token}
			ends := []*store.Finish{newLoss(l), newLoss(l), newFinish(l, job.Queued), newFinish(l, job.Scheduled)}
			w.do(ends[random.IntN(len(ends))])
		}
	}
}

// finishAll finishes all running jobs as succeeded.
func (w *harness) finishAll(left map[job.ID]bool) {
	for _, r := range w.listRunning(store.AllRunning) {
		w.do(newFinish(job.Lease{Job: r.Job.ID, Token: r.Token}, job.Succeeded))
		delete(left, r.Job.ID)
	}
}
