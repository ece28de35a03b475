package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func revisionRules() []rule {
	return []rule{
		{"each change of a job's state raises its revision by one", revisionRises},
		{"an op that changes no state does not change the revision", revisionStays},
		{"the first cancel request of a running job raises its revision, a second does not", revisionOfCancel},
		{"a revision survives a reopening", long(revisionReopened)},
		{"jobs that a due makes ready are in Moved", movedByDue},
		{"a job that is unparked is in Moved", movedByRoom},
		{"a job that a claim parks is in Moved", movedByClaim},
		{"when a job is unparked and claimed in one batch the claim has the higher revision", movedThenClaimed},
		{"a batch that moves named jobs only has an empty Moved", movedNone},
	}
}

// changesOf lists what a batch's answers tell of jobs whose state has changed.
func changesOf(b *store.Batch) (changes []store.Moved) {
	add := func(j *job.Job) {
		changes = append(changes, store.Moved{ID: j.ID, State: j.State, Revision: j.Revision})
	}
	for _, op := range b.Finishes {
		if op.Err == nil {
			add(op.Job)
		}
	}
	for _, op := range b.Cancels {
		if op.Err == nil {
			add(&op.Job)
		}
	}
	for _, op := range b.Retries {
		if op.Err == nil {
			add(&op.Job)
		}
	}
	for _, op := range b.Submits {
		if op.Err == nil && op.Existing == nil {
			add(&op.Job)
		}
	}
	for _, op := range b.Dues {
		for i := range op.Expired {
			add(&op.Expired[i])
		}
	}
	for _, op := range b.Claims {
		for i := range op.Claimed {
			add(&op.Claimed[i].Job)
		}
	}
	return append(changes, b.Moved...)
}

// revised checks a job's state and revision.
func (w *harness) revised(id job.ID, state job.State, revision int64) {
	w.Helper()
	j := w.job(id)
	equal(w, "the state", j.State, state)
	equal(w, "the revision of the "+state.String(), j.Revision, revision)
}

// moved checks what a batch tells of the jobs that it moved without naming them.
func (w *harness) moved(b *store.Batch, want ...store.Moved) {
	w.Helper()
	equal(w, "what has moved", fmt.Sprint(b.Moved), fmt.Sprint(want))
}

func revisionRises(w *harness) {
	s := w.newSubmit(delayed(time.Minute))
	w.do(s)
	equal(w, "the revision that the submit answers", s.Job.Revision, 1)
	id := s.Job.ID
	w.revised(id, job.Scheduled, 1)
	w.pass(2 * time.Minute)
	w.do(newDue())
	w.revised(id, job.Queued, 2)
	c := w.claimOne(queue)
	equal(w, "the revision that the claim answers", c.Job.Revision, 3)
	w.revised(id, job.Running, 3)
	w.do(newFinish(c.Lease(), job.Queued))
	w.revised(id, job.Queued, 4)
	c = w.claimOne(queue)
	f := newFinish(c.Lease(), job.Failed)
	w.do(f)
	equal(w, "the revision that the finish answers", f.Job.Revision, 6)
	w.revised(id, job.Failed, 6)
	r := newRetry(id)
	w.do(r)
	equal(w, "the revision that the retry answers", r.Job.Revision, 7)
	w.revised(id, job.Queued, 7)
	cancel := newCancel(id)
	w.do(cancel)
	equal(w, "the revision that the cancel answers", cancel.Job.Revision, 8)
	w.revised(id, job.Cancelled, 8)

	leased := w.newSubmit(leasedAs(w.token()))
	w.do(leased)
	w.revised(leased.Job.ID, job.Running, 1)
	late := w.submit(patient(time.Minute))
	w.pass(2 * time.Minute)
	w.do(newDue())
	w.revised(late, job.Expired, 2)
}

func revisionStays(w *harness) {
	c := w.running()
	w.do(newRenew(c.Lease(), leaseFor), newAppend(c.Lease(), 1, 0, "said"))
	w.revised(c.Job.ID, job.Running, 2)
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.do(newCancel(c.Job.ID)) // it has ended
	w.try(newRetry(c.Job.ID)) // it succeeded
	w.revised(c.Job.ID, job.Succeeded, 3)
}

func revisionOfCancel(w *harness) {
	c := w.running()
	w.do(newCancel(c.Job.ID))
	w.revised(c.Job.ID, job.Running, 3)
	w.do(newCancel(c.Job.ID))
	w.revised(c.Job.ID, job.Running, 3)
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.revised(c.Job.ID, job.Cancelled, 4)
}

func revisionReopened(w *harness) {
	c := w.running()
	w.do(newCancel(c.Job.ID))
	w.reopen()
	w.revised(c.Job.ID, job.Running, 3)
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.reopen()
	w.revised(c.Job.ID, job.Cancelled, 4)
	w.do(newRetry(c.Job.ID))
	w.reopen()
	w.revised(c.Job.ID, job.Queued, 5)
}

func movedByDue(w *harness) {
	w.limit(queue, job.Limits{KeyRunning: 1})
	first := w.submit(delayed(time.Minute))
	w.pass(time.Second)
	second := w.submit(delayed(time.Minute))
	w.pass(2 * time.Minute)
	w.moved(w.do(newDue()), store.Moved{ID: first, State: job.Queued, Revision: 2}, store.Moved{ID: second, State: job.Parked, Revision: 2})
	w.revised(second, job.Parked, 2)
	w.limits = nil
	w.moved(w.do(newDue()), store.Moved{ID: second, State: job.Queued, Revision: 3})
	w.revised(second, job.Queued, 3)
}

func movedByRoom(w *harness) {
	w.limit(queue, job.Limits{KeyRunning: 1})
	c := w.claimOneOf(w.submit())
	second, third, last := w.submit(), w.submit(), w.submit()
	w.moved(w.do(newFinish(c.Lease(), job.Succeeded)), store.Moved{ID: second, State: job.Queued, Revision: 2})
	w.moved(w.do(newCancel(second)), store.Moved{ID: third, State: job.Queued, Revision: 2})
	w.moved(w.do(newDelete(third)), store.Moved{ID: last, State: job.Queued, Revision: 2})
	w.revised(last, job.Queued, 2)
}

func movedByClaim(w *harness) {
	first, second := w.submit(), w.submit()
	w.limit(queue, job.Limits{KeyRunning: 1})
	claim := w.newClaim(queue, 2)
	b := w.do(claim)
	if len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != first {
		w.Fatalf("%d jobs were claimed of a key that may run one", len(claim.Claimed))
	}
	w.moved(b, store.Moved{ID: second, State: job.Parked, Revision: 2})
	w.revised(second, job.Parked, 2)
}

func movedThenClaimed(w *harness) {
	w.limit(queue, job.Limits{KeyRunning: 1})
	c := w.claimOneOf(w.submit())
	next := w.submit()
	claim := w.newClaim(queue, 1)
	b := w.do(newFinish(c.Lease(), job.Succeeded), claim)
	if len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != next {
		w.Fatalf("the job that followed was not claimed")
	}
	w.moved(b, store.Moved{ID: next, State: job.Queued, Revision: 2})
	equal(w, "the revision that the claim answers", claim.Claimed[0].Job.Revision, 3)
}

func movedNone(w *harness) {
	w.moved(w.do(w.newSubmit(), w.newSubmit(delayed(time.Hour)), newDue(), w.newClaim(queue, 1)))
}
