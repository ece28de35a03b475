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
		{"a job that is unparked is in Moved", movedByUnpark},
		{"a job that a claim parks is in Moved", movedByClaim},
		{"when a job is unparked and claimed in one batch the claim has the higher revision", movedThenClaimed},
		{"a batch that moves named jobs only has an empty Moved", movedNone},
	}
}

// changesOf lists the changes of state in the answers of a batch.
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

// wantRevision checks a job's state and revision.
func (w *harness) wantRevision(id job.ID, state job.State, revision int64) {
	w.Helper()
	j := w.job(id)
	wantEqual(w, "the state", j.State, state)
	wantEqual(w, "the revision of the "+state.String(), j.Revision, revision)
}

// wantMoved checks the Moved of a batch.
func (w *harness) wantMoved(b *store.Batch, want ...store.Moved) {
	w.Helper()
	wantEqual(w, "the moved jobs", fmt.Sprint(b.Moved), fmt.Sprint(want))
}

func revisionRises(w *harness) {
	s := w.newSubmit(delayed(time.Minute))
	w.do(s)
	wantEqual(w, "the revision that the submit answers", s.Job.Revision, 1)
	id := s.Job.ID
	w.wantRevision(id, job.Scheduled, 1)
	w.advance(2 * time.Minute)
	w.do(newDue())
	w.wantRevision(id, job.Queued, 2)
	c := w.claimOne(queue)
	wantEqual(w, "the revision that the claim answers", c.Job.Revision, 3)
	w.wantRevision(id, job.Running, 3)
	w.do(newFinish(c.Lease(), job.Queued))
	w.wantRevision(id, job.Queued, 4)
	c = w.claimOne(queue)
	f := newFinish(c.Lease(), job.Failed)
	w.do(f)
	wantEqual(w, "the revision that the finish answers", f.Job.Revision, 6)
	w.wantRevision(id, job.Failed, 6)
	r := newRetry(id)
	w.do(r)
	wantEqual(w, "the revision that the retry answers", r.Job.Revision, 7)
	w.wantRevision(id, job.Queued, 7)
	cancel := newCancel(id)
	w.do(cancel)
	wantEqual(w, "the revision that the cancel answers", cancel.Job.Revision, 8)
	w.wantRevision(id, job.Cancelled, 8)

	leased := w.newSubmit(leasedAs(w.token()))
	w.do(leased)
	w.wantRevision(leased.Job.ID, job.Running, 1)
	late := w.submit(withQueueTimeout(time.Minute))
	w.advance(2 * time.Minute)
	w.do(newDue())
	w.wantRevision(late, job.Expired, 2)
}

func revisionStays(w *harness) {
	c := w.running()
	w.do(newRenew(c.Lease(), leaseFor), newAppend(c.Lease(), 1, 0, "text"))
	w.wantRevision(c.Job.ID, job.Running, 2)
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.do(newCancel(c.Job.ID)) // the job has ended
	w.try(newRetry(c.Job.ID)) // the job succeeded
	w.wantRevision(c.Job.ID, job.Succeeded, 3)
}

func revisionOfCancel(w *harness) {
	c := w.running()
	w.do(newCancel(c.Job.ID))
	w.wantRevision(c.Job.ID, job.Running, 3)
	w.do(newCancel(c.Job.ID))
	w.wantRevision(c.Job.ID, job.Running, 3)
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.wantRevision(c.Job.ID, job.Cancelled, 4)
}

func revisionReopened(w *harness) {
	c := w.running()
	w.do(newCancel(c.Job.ID))
	w.reopen()
	w.wantRevision(c.Job.ID, job.Running, 3)
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.reopen()
	w.wantRevision(c.Job.ID, job.Cancelled, 4)
	w.do(newRetry(c.Job.ID))
	w.reopen()
	w.wantRevision(c.Job.ID, job.Queued, 5)
}

func movedByDue(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	first := w.submit(delayed(time.Minute))
	w.advance(time.Second)
	second := w.submit(delayed(time.Minute))
	w.advance(2 * time.Minute)
	w.wantMoved(w.do(newDue()), store.Moved{ID: first, State: job.Queued, Revision: 2}, store.Moved{ID: second, State: job.Parked, Revision: 2})
	w.wantRevision(second, job.Parked, 2)
	w.limits = nil
	w.wantMoved(w.do(newDue()), store.Moved{ID: second, State: job.Queued, Revision: 3})
	w.wantRevision(second, job.Queued, 3)
}

func movedByUnpark(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	c := w.claimOneOf(w.submit())
	second, third, last := w.submit(), w.submit(), w.submit()
	w.wantMoved(w.do(newFinish(c.Lease(), job.Succeeded)), store.Moved{ID: second, State: job.Queued, Revision: 2})
	w.wantMoved(w.do(newCancel(second)), store.Moved{ID: third, State: job.Queued, Revision: 2})
	w.wantMoved(w.do(newDelete(third)), store.Moved{ID: last, State: job.Queued, Revision: 2})
	w.wantRevision(last, job.Queued, 2)
}

func movedByClaim(w *harness) {
	first, second := w.submit(), w.submit()
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	claim := w.newClaim(queue, 2)
	b := w.do(claim)
	if len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != first {
		w.Fatalf("%d jobs were claimed of a key with a limit of one", len(claim.Claimed))
	}
	w.wantMoved(b, store.Moved{ID: second, State: job.Parked, Revision: 2})
	w.wantRevision(second, job.Parked, 2)
}

func movedThenClaimed(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	c := w.claimOneOf(w.submit())
	next := w.submit()
	claim := w.newClaim(queue, 1)
	b := w.do(newFinish(c.Lease(), job.Succeeded), claim)
	if len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != next {
		w.Fatalf("the unparked job was not claimed")
	}
	w.wantMoved(b, store.Moved{ID: next, State: job.Queued, Revision: 2})
	wantEqual(w, "the revision that the claim answers", claim.Claimed[0].Job.Revision, 3)
}

func movedNone(w *harness) {
	w.wantMoved(w.do(w.newSubmit(), w.newSubmit(delayed(time.Hour)), newDue(), w.newClaim(queue, 1)))
}
