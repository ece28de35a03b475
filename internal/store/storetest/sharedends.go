package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func sharedEndRules() []rule {
	return []rule{
		{"of a cancel and a finish one ends the job, and the later answer equals the stored job", racedCancelFinish},
		{"of two cancels of a waiting job one ends it, and both answer the same", racedCancels},
		{"after a cancel concurrent with a claim the job has ended or has a cancel request", racedCancelClaim},
		{"a delete concurrent with a finish removes the job, and reports its files once", racedDeleteFinish},
		{"two deletes of one job apply, and it is removed and counted once", racedDeletes},
		{"of two retries of one job one applies", racedRetries},
		{"a retry concurrent with a delete removes the job", racedRetryDelete},
		{"a presence concurrent with the cancel of an abandoned job either keeps the job or comes too late", racedPresence},
		{"a presence that one store committed keeps the job from a cancel at another", presenceAtOtherStore},
		{"an end makes its row and its job once, whichever op ends the job", long(racedEnds)},
		{"exactly one end sees a tally without unfinished jobs", racedTally},
	}
}

func racedCancelFinish(w *harness) {
	for round := range rounds {
		for _, to := range []job.State{job.Succeeded, job.Failed, job.Scheduled, job.Queued} {
			c := w.running()
			cancel, f := newCancel(c.Job.ID), newFinish(c.Lease(), to)
			w.race(round, cancel, f)
			if cancel.Err != nil || f.Err != nil {
				w.Fatalf("a concurrent cancel answers %v, and the finish %v", cancel.Err, f.Err)
			}
			w.finishedOrCancelled(to, cancel, f)
		}
	}
}

// finishedOrCancelled checks the answers to a cancel and a finish of one job.
func (w *harness) finishedOrCancelled(to job.State, cancel *store.Cancel, f *store.Finish) {
	w.Helper()
	first, later := cancel.Job, *f.Job
	switch {
	case f.State == to && to.Ended(): // the finish came first, and the cancel found it ended
		wantEqual(w, "whether the cancel ended the job", cancel.Ended, false)
		wantEqual(w, "the job that the cancel answers", text(cancel.Job), text(*f.Job))
		first.Revision--
	case f.State == to: // the finish came first, and the cancel ended what waited
		first, later = later, first
		wantEqual(w, "whether the cancel ended the job", cancel.Ended, true)
		wantEqual(w, "the state", later.State, job.Cancelled)
	default: // the cancel came first
		wantEqual(w, "whether the cancel ended the job", cancel.Ended, false)
		wantEqual(w, "the state that the cancel answers", first.State, job.Running)
		wantEqual(w, "whether its cancel request is set", first.CancelRequestedAt.IsZero(), false)
		wantEqual(w, "the state", f.State, job.Cancelled)
	}
	if first.Revision >= later.Revision {
		w.Errorf("the later answer has the revision %d, and the earlier one %d", later.Revision, first.Revision)
	}
	w.eachStore(func() { wantEqual(w, "the job", text(w.job(later.ID)), text(later)) })
}

func racedCancels(w *harness) {
	for round := range rounds {
		id := w.submit()
		a, b := newCancel(id), newCancel(id)
		w.race(round, a, b)
		wantEqual(w, "whether one of two cancels ended the job", a.Ended != b.Ended, true)
		wantEqual(w, "the job that one answers", text(a.Job), text(b.Job))
		wantEqual(w, "the job", text(w.job(id)), text(a.Job))
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Cancelled: rounds})
}

func racedCancelClaim(w *harness) {
	for round := range rounds {
		id := w.submit()
		cancel, claim := newCancel(id), w.newClaim(queue, 1)
		w.race(round, cancel, claim)
		wantEqual(w, "whether the job ended or was claimed", cancel.Ended != (len(claim.Claimed) == 1), true)
		if cancel.Ended {
			wantEqual(w, "the state", w.job(id).State, job.Cancelled)
			continue
		}
		renew := newRenew(claim.Claimed[0].Lease(), 0)
		w.do(renew)
		wantEqual(w, "the cancel request", renew.CancelRequested, true)
		w.do(newFinish(claim.Claimed[0].Lease(), job.Succeeded))
		wantEqual(w, "the state", w.job(id).State, job.Cancelled)
	}
}

func racedDeleteFinish(w *harness) {
	for round := range rounds {
		c := w.running(withFiles("a"))
		w.do(newAppend(c.Lease(), 1, 0, "text"))
		del, f := newDelete(c.Job.ID), newFinish(c.Lease(), job.Succeeded)
		raced := w.race(round, del, f)
		wantEqual(w, "the answer to the delete", del.Err, nil)
		wantEqual(w, "the answer to the finish", f.Err, nil)
		want := job.Succeeded
		if del.Running {
			want = job.Cancelled
		}
		wantEqual(w, "the state that the finish answers", f.State, want)
		w.removedOnce(c.Job.ID, raced)
		w.eachStore(func() { wantEqual(w, "the lease", w.lease(c.Lease()).Token, job.Token{}) })
	}
}

// removedOnce checks that a job with files is deleted, and that exactly one commit reported that.
func (w *harness) removedOnce(id job.ID, raced []*store.Batch) {
	w.Helper()
	var removed []job.ID
	for _, b := range raced {
		removed = append(removed, b.Removed...)
	}
	wantEqual(w, "the jobs that the commits removed", fmt.Sprint(removed), fmt.Sprint([]job.ID{id}))
	w.eachStore(func() {
		w.wantGone(mine, id)
		wantEqual(w, "the jobs with files", len(readAllPages(w, w.store.WithFiles)), 0)
	})
}

func racedDeletes(w *harness) {
	for round := range rounds {
		id := w.submit(withFiles("a"))
		a, b := newDelete(id), newDelete(id)
		raced := w.race(round, a, b)
		wantEqual(w, "the answer to one delete", a.Err, nil)
		wantEqual(w, "the answer to the other", b.Err, nil)
		w.removedOnce(id, raced)
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Cancelled: rounds})
}

func racedRetries(w *harness) {
	for round := range rounds {
		c := w.running(withRef("put:p"))
		w.do(newFinish(c.Lease(), job.Failed))
		a, b := newRetry(c.Job.ID), newRetry(c.Job.ID)
		w.race(round, a, b)
		won := wantOneApplied(w, job.NotRetryable, a, b)
		wantEqual(w, "the job", text(w.job(c.Job.ID)), text(won.Job))
		w.wantEnding("p", ending{State: "queued"})
		w.do(newCancel(c.Job.ID))
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Failed: rounds, Cancelled: rounds, Retried: rounds})
}

func racedRetryDelete(w *harness) {
	for round := range rounds {
		c := w.running(withFiles("a"))
		w.do(newFinish(c.Lease(), job.Failed))
		retry, del := newRetry(c.Job.ID), newDelete(c.Job.ID)
		raced := w.race(round, retry, del)
		wantEqual(w, "the answer to the delete", del.Err, nil)
		if retry.Err != nil {
			w.wantCode(job.NotFound, retry.Err)
		}
		w.removedOnce(c.Job.ID, raced)
		wantEqual(w, "the jobs left to claim", len(w.claim(queue, 1)), 0)
	}
}

func racedPresence(w *harness) {
	for round := range 2 * rounds {
		id := w.submit(mayBeAbandoned)
		w.advance(abandonAfter)
		sign, cancel := newPresence(id), newAbandon(id)
		if round < rounds {
			sign = &store.Presence{Owners: []job.Owner{mine}}
		}
		w.race(round%rounds, sign, cancel)
		wantEqual(w, "the answer to the presence", sign.Err, nil)
		if first := opsOrder(round); first >= 0 {
			wantEqual(w, "whether the cancel applied, having come first", cancel.Err == nil, first == 1)
		}
		if cancel.Err == nil {
			wantEqual(w, "whether the cancel ended the job", cancel.Ended, true)
			wantEqual(w, "the job", text(w.job(id)), text(cancel.Job))
			continue
		}
		w.wantCode(job.Conflict, cancel.Err)
		wantEqual(w, "the state of a job with a presence", w.job(id).State, job.Queued)
		w.eachStore(func() { w.wantAbandonable() })
		w.do(newCancel(id))
	}
}

func presenceAtOtherStore(w *harness) {
	waiting, running := w.submit(mayBeAbandoned), w.running(inQueue("running"), mayBeAbandoned)
	for n := range w.stores {
		w.advance(abandonAfter)
		w.use(n)
		w.wantAbandonable(waiting, running.Job.ID)
		w.do(newPresence(waiting, running.Job.ID))
		w.eachStore(func() {
			w.wantAbandonable()
			w.mustRefuse(job.Conflict, newAbandon(waiting), newAbandon(running.Job.ID))
		})
	}
	w.advance(abandonAfter)
	w.do(newAbandon(waiting), newAbandon(running.Job.ID))
	w.eachStore(func() { w.wantAbandonable() })
}

// racedPair is two ops that may each end the job.
type racedPair struct {
	name string
	ops  func(w *harness, edits ...func(*store.Submit)) (a, b any)
}

func racedPairs() []racedPair {
	ofRunning := func(a, b func(w *harness, l job.Lease) any) func(w *harness, edits ...func(*store.Submit)) (any, any) {
		return func(w *harness, edits ...func(*store.Submit)) (any, any) {
			l := w.running(edits...).Lease()
			return a(w, l), b(w, l)
		}
	}
	ofWaiting := func(a, b func(id job.ID) any) func(w *harness, edits ...func(*store.Submit)) (any, any) {
		return func(w *harness, edits ...func(*store.Submit)) (any, any) {
			id := w.submit(append(edits, withQueueTimeout(time.Second))...)
			w.advance(2 * time.Second)
			return a(id), b(id)
		}
	}
	finish := func(_ *harness, l job.Lease) any { return newFinish(l, job.Succeeded) }
	lapse := func(w *harness, l job.Lease) any {
		w.advance(leaseFor + time.Second)
		return newLapse(l, job.Failed)
	}
	stop := func(_ *harness, l job.Lease) any { return newCancel(l.Job) }
	cancel := func(id job.ID) any { return newCancel(id) }
	remove := func(id job.ID) any { return newDelete(id) }
	expire := func(job.ID) any { return newDue() }
	return []racedPair{
		{"a finish and a cancel", ofRunning(finish, stop)},
		{"a finish and a sweep", ofRunning(finish, lapse)},
		{"two sweeps", ofRunning(lapse, lapse)},
		{"two cancels", ofWaiting(cancel, cancel)},
		{"a cancel and a delete", ofWaiting(cancel, remove)},
		{"a cancel and an expiry", ofWaiting(cancel, expire)},
		{"two expiries", ofWaiting(expire, expire)},
		{"a delete and an expiry", ofWaiting(remove, expire)},
	}
}

func racedEnds(w *harness) {
	for round := range rounds / 2 {
		for _, pair := range racedPairs() {
			place := fmt.Sprintf("%s %d", pair.name, round)
			a, b := pair.ops(w, withRef("put:"+place), withRef("job:"+place))
			made := madeBy(w.race(round, a, b))
			if len(made) != 1 {
				w.Fatalf("%s of one job made %d jobs", pair.name, len(made))
			}
			w.eachStore(func() {
				wantEqual(w, "the rows after "+pair.name, len(w.rows(endKind, place)), 1)
				wantEqual(w, "the jobs after "+pair.name, w.counts(place), job.Counts{Queued: 1})
			})
			wantEqual(w, "the job that is claimed", w.claimOne(place).Job.ID, made[0].ID)
		}
	}
}

func madeBy(raced []*store.Batch) (made []job.Job) {
	for _, b := range raced {
		made = append(made, b.FollowUps...)
	}
	return made
}

func racedTally(w *harness) {
	for round := range rounds {
		for _, ofRunning := range []bool{true, false} {
			name := fmt.Sprintf("%d %v", round, ofRunning)
			last, other := w.running(withTally(name)), w.submit(withTally(name), inQueue("other"))
			var end any = newCancel(other)
			if ofRunning {
				end = newFinish(w.claimOne("other").Lease(), job.Failed)
			}
			done := newFinish(w.running(withTally(name)).Lease(), job.Succeeded)
			wantEqual(w, "the jobs made before the last ends", len(w.do(done).FollowUps), 0)
			raced := w.race(round, newFinish(last.Lease(), job.Succeeded), end)
			wantEqual(w, "the jobs that the last two ends made", len(madeBy(raced)), 1)
			w.eachStore(func() {
				c, err := w.store.Tally(w.ctx, mine, name)
				wantEqual(w, fmt.Sprintf("the unfinished of the tally (%v)", err), c.Unfinished(), 0)
				wantEqual(w, "the ended of the tally", c.Succeeded+c.Failed+c.Cancelled, 3)
				wantEqual(w, "the jobs made", w.counts("tally of "+name), job.Counts{Queued: 1})
			})
		}
	}
}
