package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func dueRules() []rule {
	return []rule{
		{"a scheduled job is ready once its time has come", dueReady},
		{"a job that waits longer than its queue time expires", dueExpires},
		{"a job that was started does not expire", dueStarted},
		{"each due moves up to its limit and answers whether more is due", dueLimited},
		{"a due job is claimed in the same batch", dueThenClaim},
		{"the next due times are those of the first jobs to wait for them", dueNext},
		{"due on a store with nothing due does nothing", dueNothing},
		{"the store's clock decides", dueClock},
		{"the clock that a store shows is its own to within the tolerance, and does not go back", clockShown},
	}
}

func dueReady(w *harness) {
	soon, late := w.submit(delayed(time.Minute)), w.submit(delayed(time.Hour))
	w.advance(time.Minute + time.Second)
	due := newDue()
	w.do(due)
	wantEqual(w, "the jobs made ready", due.Ready, 1)
	wantEqual(w, "whether there is more", due.More, false)
	j := w.job(soon)
	wantEqual(w, "the state of the first job", j.State, job.Queued)
	if j.RunAt.After(w.now()) || j.RunAt.Before(j.CreatedAt.Add(time.Minute)) {
		w.Errorf("the job became ready at %v", j.RunAt)
	}
	wantEqual(w, "the state of the other", w.job(late).State, job.Scheduled)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Scheduled: 1, Queued: 1})
	wantEqual(w, "the job claimed", w.claimOne(queue).Job.ID, soon)
}

func dueExpires(w *harness) {
	id, other := w.submit(withQueueTimeout(time.Minute), withKeep(17*time.Minute)), w.submit()
	w.advance(time.Minute - time.Second)
	w.do(newDue())
	wantEqual(w, "the state in time", w.job(id).State, job.Queued)
	w.advance(2 * time.Second)
	due := newDue()
	due.Failure = &job.Failure{Code: "too_late", Message: "no worker came", Retryable: true}
	w.do(due)
	j := w.job(id)
	wantEqual(w, "the state", j.State, job.Expired)
	if j.Failure == nil || j.Failure.Code != "too_late" || j.Failure.Message != "no worker came" || !j.Failure.Retryable {
		w.Errorf("the expired job has the failure %+v", j.Failure)
	}
	w.wantTime("FinishedAt", j.FinishedAt, w.now())
	w.wantTime("ExpiresAt", j.ExpiresAt, w.now().Add(17*time.Minute))
	if len(due.Expired) != 1 || text(due.Expired[0]) != text(j) {
		w.Errorf("the answer has %d expired jobs", len(due.Expired))
	}
	wantEqual(w, "the state of the job without a queue timeout", w.job(other).State, job.Queued)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 1, Expired: 1})
}

func dueStarted(w *harness) {
	back := w.running(withQueueTimeout(time.Minute))
	w.do(newFinish(back.Lease(), job.Scheduled))
	running := w.running(withQueueTimeout(time.Minute))
	w.advance(time.Hour)
	w.do(newDue())
	wantEqual(w, "the state of the retried job", w.job(back.Job.ID).State, job.Queued)
	wantEqual(w, "the state of the running", w.job(running.Job.ID).State, job.Running)
}

func dueLimited(w *harness) {
	w.submitMany(25, delayed(time.Minute))
	w.submitMany(25, withQueueTimeout(time.Minute))
	w.advance(2 * time.Minute)
	ready, expired, more := 0, 0, true
	for rounds := 0; more && rounds < 10; rounds++ {
		due := &store.Due{Limit: 10}
		w.do(due)
		if due.Ready > 10 || len(due.Expired) > 10 {
			w.Errorf("a due with a limit of 10 moved %d and %d jobs", due.Ready, len(due.Expired))
		}
		ready, expired, more = ready+due.Ready, expired+len(due.Expired), due.More
	}
	wantEqual(w, "the jobs made ready", ready, 25)
	wantEqual(w, "the jobs expired", expired, 25)
	wantEqual(w, "whether there is more", more, false)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 25, Expired: 25})
}

func dueThenClaim(w *harness) {
	id := w.submit(delayed(time.Minute))
	w.advance(2 * time.Minute)
	claim := w.newClaim(queue, 2)
	w.do(newDue(), claim)
	if len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != id {
		w.Errorf("%d jobs were claimed with their due", len(claim.Claimed))
	}
}

func dueNext(w *harness) {
	check := func(ready, expires time.Time) {
		w.Helper()
		r, e, err := w.store.NextDue(w.ctx)
		if err != nil {
			w.Fatalf("next due: %v", err)
		}
		w.wantTime("the next ready", r, ready)
		w.wantTime("the next expiry", e, expires)
	}
	now := w.now()
	check(time.Time{}, time.Time{})
	w.submit(delayed(time.Hour))
	w.submit(withQueueTimeout(2 * time.Hour))
	check(now.Add(time.Hour), now.Add(2*time.Hour))
	first, firstToExpire := w.submit(delayed(time.Minute)), w.submit(inQueue("other"), withQueueTimeout(3*time.Minute))
	check(now.Add(time.Minute), now.Add(3*time.Minute))
	w.do(newCancel(first))
	w.claimOne("other")
	check(now.Add(time.Hour), now.Add(2*time.Hour))
	w.do(newCancel(firstToExpire))
	w.advance(3 * time.Hour)
	w.do(newDue())
	check(time.Time{}, time.Time{})
}

func dueNothing(w *harness) {
	w.submit()
	w.submit(delayed(time.Hour))
	before := w.stored()
	due := newDue()
	w.do(due)
	wantEqual(w, "the jobs made ready", due.Ready, 0)
	wantEqual(w, "the jobs expired", len(due.Expired), 0)
	wantEqual(w, "whether there is more", due.More, false)
	w.sameStored("a due changed the store", before, w.stored())
}

func dueClock(w *harness) {
	w.wantTime("the store's clock", w.store.Now(), w.now())
	w.advance(time.Hour)
	w.wantTime("the store's clock", w.store.Now(), w.now())
}

func pruneRules() []rule {
	return []rule{
		{"ended jobs past their time are deleted with all their data", pruneDeletes},
		{"a prune keeps unfinished jobs and jobs before their time", pruneKeepsUnexpired},
		{"a prune reads up to its limit of jobs and answers its cursor", pruneCursor},
		{"what is no cursor is refused", notACursor},
		{"a prune does not change the totals", pruneTotals},
	}
}

func pruneDeletes(w *harness) {
	var ended []job.ID
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled} {
		c := w.running()
		w.do(newAppend(c.Lease(), 1, 0, "text"), newFinish(c.Lease(), to))
		ended = append(ended, c.Job.ID)
	}
	expired, _ := w.inState(job.Expired)
	ended = append(ended, expired)
	w.advance(keep - time.Minute)
	early := newPrune()
	w.do(early)
	wantEqual(w, "the jobs deleted early", early.Deleted, 0)
	w.advance(2 * time.Minute)
	p := newPrune()
	w.do(p)
	wantEqual(w, "the jobs deleted", p.Deleted, len(ended))
	for _, id := range ended {
		w.wantGone(mine, id)
	}
	w.mustRefuse(job.NotFound, newRetry(ended[1]), newCancel(ended[0]))
}

func pruneKeepsUnexpired(w *harness) {
	var ids []job.ID
	for _, state := range []job.State{job.Scheduled, job.Queued, job.Running} {
		id, _ := w.inState(state)
		ids = append(ids, id)
	}
	w.do(newFinish(w.running(withKeep(100*day)).Lease(), job.Succeeded))
	w.advance(50 * day)
	before := w.stored()
	p := newPrune()
	w.do(p)
	wantEqual(w, "the jobs deleted", p.Deleted, 0)
	wantEqual(w, "the cursor after the newest", p.Next, "")
	w.sameStored("a prune changed what was to stay", before, w.stored())
	for _, id := range ids {
		w.job(id)
	}
}

func pruneCursor(w *harness) {
	const jobs = 30
	for i := range jobs {
		c := w.running()
		if i%3 != 0 {
			w.do(newFinish(c.Lease(), job.Succeeded))
		}
	}
	w.advance(day)
	deleted, after := 0, ""
	for rounds := 1; ; rounds++ {
		p := &store.Prune{After: after, Limit: 7}
		w.do(p)
		deleted += p.Deleted
		if p.Deleted > 7 || rounds > 2+jobs/7 {
			w.Fatalf("prune %d of 7 jobs each deleted %d and continues after %q", rounds, p.Deleted, p.Next)
		}
		if p.Next == "" {
			break
		}
		if p.Next == after {
			w.Fatalf("the cursor of a prune does not move")
		}
		after = p.Next
	}
	wantEqual(w, "the jobs deleted", deleted, jobs*2/3)
	wantEqual(w, "the jobs left", len(w.listAll(job.Filter{Owner: mine})), jobs/3)
}

func notACursor(w *harness) {
	const none = "\x00 no cursor"
	w.mustRefuse(job.Invalid, &store.Prune{After: none, Limit: 10})
	if _, next, err := w.store.WithFiles(w.ctx, none, 10); err == nil || next != "" {
		w.Errorf("the list of jobs with files repeats a cursor: %q, %v", next, err)
	}
	if _, next, err := w.store.Abandonable(w.ctx, none, 10); err == nil || next != "" {
		w.Errorf("the list of abandonable jobs repeats a cursor: %q, %v", next, err)
	}
}

func pruneTotals(w *harness) {
	w.do(newFinish(w.running().Lease(), job.Succeeded))
	w.do(newFinish(w.running().Lease(), job.Failed))
	w.advance(day)
	w.do(newPrune())
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Succeeded: 1, Failed: 1})
}

func clockShown(w *harness) {
	last := time.Time{}
	for i := range 50 {
		w.advance(time.Duration(i) * 7 * time.Millisecond)
		if i == 25 {
			w.reopen()
		}
		shown := w.store.Now()
		if off := shown.Sub(w.now()).Abs(); off > store.ClockTolerance {
			w.Errorf("the clock that is shown is off by %s", off)
		}
		if back := last.Sub(shown); back > store.ClockTolerance {
			w.Errorf("the clock went back by %s", back)
		}
		s := w.newSubmit()
		w.do(s)
		if off := s.Job.CreatedAt.Sub(shown).Abs(); off > store.ClockTolerance {
			w.Errorf("the clock of a commit is off by %s from Now", off)
		}
		last = shown
	}
}
