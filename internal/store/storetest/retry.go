package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func retryRules() []rule {
	return []rule{
		{"a retry queues a failed, cancelled or expired job", retryQueues},
		{"a retried job keeps its output and counts attempts from zero", retryStartsOver},
		{"a job that succeeded or has not ended is not retryable", retryRefused},
		{"a job that was cancelled while it ran may succeed after a retry", retryForgetsCancel},
		{"a retried expired job has its whole queue timeout again", retryForgetsExpiry},
		{"of two retries in one batch the first applies", retryTwice},
		{"a retry of an unknown job is not found", retryUnknown},
		{"a retried job is not pruned", retryThenPrune},
		{"a cancel and a retry in one batch queue the job", cancelThenRetry},
		{"a job that is retried and claimed in one batch runs under its lease", retryThenClaim},
	}
}

func retryQueues(w *harness) {
	for _, state := range []job.State{job.Failed, job.Cancelled, job.Expired} {
		id, _ := w.inState(state)
		w.advance(time.Minute)
		r := newRetry(id)
		w.do(r)
		j := w.job(id)
		wantEqual(w, "the state after "+state.String(), j.State, job.Queued)
		wantEqual(w, "the answered job", text(r.Job), text(j))
		wantEqual(w, "the attempts", j.Attempt, 0)
		w.wantTime("RunAt", j.RunAt, w.now())
		if j.Failure != nil || !j.FinishedAt.IsZero() || !j.ExpiresAt.IsZero() || !j.StartedAt.IsZero() || !j.CancelRequestedAt.IsZero() {
			w.Errorf("a retried job still has marks of its end: %s", text(j))
		}
		c := w.counts(j.Queue)
		wantEqual(w, "the queued", c.Queued, 1)
		wantEqual(w, "the retried", c.Retried, 1)
		wantEqual(w, "the ended", c.Failed+c.Cancelled+c.Expired, 1)
		wantEqual(w, "the job claimed next", w.claimOne(j.Queue).Job.ID, id)
	}
}

func retryStartsOver(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "first"), newFinish(c.Lease(), job.Queued))
	c = w.claimOne(queue)
	w.do(newAppend(c.Lease(), 2, 1, "second"), newFinish(c.Lease(), job.Failed))
	w.do(newRetry(c.Job.ID))
	w.advance(time.Second)
	c = w.claimOne(queue)
	wantEqual(w, "the attempt", c.Job.Attempt, 1)
	wantEqual(w, "the cursor", c.Job.Cursor, 2)
	w.wantTime("StartedAt", c.Job.StartedAt, w.now())
	wantEqual(w, "the output", w.textOf(c.Job.ID), "firstsecond")
	w.do(newAppend(c.Lease(), 1, 2, "third"), newFinish(c.Lease(), job.Succeeded))
	wantEqual(w, "the output", w.textOf(c.Job.ID), "firstsecondthird")
}

func retryRefused(w *harness) {
	for _, state := range []job.State{job.Scheduled, job.Queued, job.Running, job.Succeeded} {
		id, _ := w.inState(state)
		w.mustRefuse(job.NotRetryable, newRetry(id))
	}
}

func retryForgetsCancel(w *harness) {
	c := w.running()
	w.do(newCancel(c.Job.ID))
	w.do(newFinish(c.Lease(), job.Cancelled), newRetry(c.Job.ID))
	c = w.claimOne(queue)
	renew, f := newRenew(c.Lease(), leaseFor), newFinish(c.Lease(), job.Succeeded)
	w.do(renew, f)
	wantEqual(w, "the cancel request of the new attempt", renew.CancelRequested, false)
	wantEqual(w, "the state of the job", f.State, job.Succeeded)
}

func retryForgetsExpiry(w *harness) {
	id := w.submit(withQueueTimeout(time.Minute))
	w.advance(2 * time.Minute)
	w.do(newDue())
	wantEqual(w, "the state", w.job(id).State, job.Expired)
	w.do(newRetry(id))
	w.do(newDue())
	wantEqual(w, "the state after the retry", w.job(id).State, job.Queued)
	w.advance(50 * time.Second)
	w.do(newDue())
	wantEqual(w, "the state within the queue time", w.job(id).State, job.Queued)
	w.advance(20 * time.Second)
	w.do(newDue())
	wantEqual(w, "the state past the queue time", w.job(id).State, job.Expired)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Expired: 2, Retried: 1})
}

func retryTwice(w *harness) {
	id, _ := w.inState(job.Failed)
	first, second := newRetry(id), newRetry(id)
	w.try(first, second)
	if first.Err != nil {
		w.Errorf("the first retry was refused: %v", first.Err)
	}
	w.wantCode(job.NotRetryable, second.Err)
	wantEqual(w, "the counts", w.counts("failed"), job.Counts{Queued: 1, Failed: 1, Retried: 1})
}

func retryUnknown(w *harness) {
	deleted, _ := w.inState(job.Failed)
	w.do(newDelete(deleted))
	w.mustRefuse(job.NotFound, newRetry(w.id()), newRetry(job.ID{}), newRetry(deleted))
}

func retryThenPrune(w *harness) {
	id, _ := w.inState(job.Failed)
	w.do(newRetry(id))
	w.advance(30 * day)
	w.do(newPrune())
	wantEqual(w, "the state", w.job(id).State, job.Queued)
}

func cancelThenRetry(w *harness) {
	id := w.submit()
	cancel, retry, claim := newCancel(id), newRetry(id), w.newClaim(queue, 1)
	w.do(cancel, retry, claim)
	wantEqual(w, "the job as the cancel left it", cancel.Job.State, job.Cancelled)
	wantEqual(w, "the job as the retry left it", retry.Job.State, job.Queued)
	j := w.job(id)
	wantEqual(w, "the state", j.State, job.Running)
	if !j.CancelRequestedAt.IsZero() {
		w.Errorf("the retried job is asked to stop")
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Running: 1, Cancelled: 1, Retried: 1})
}

func retryThenClaim(w *harness) {
	for _, state := range []job.State{job.Failed, job.Cancelled, job.Expired} {
		id, _ := w.inState(state)
		claim := w.newClaim(state.String(), 1)
		w.do(newRetry(id), claim)
		if len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != id {
			w.Fatalf("the claim got %v", claim.Claimed)
		}
		c := &claim.Claimed[0]
		r := w.lease(c.Lease())
		wantEqual(w, "the job of the lease", r.Job.ID, id)
		wantEqual(w, "the length of the lease", r.LeaseFor, leaseFor)
		f := newFinish(c.Lease(), job.Succeeded)
		w.do(newAppend(c.Lease(), 1, r.Job.Cursor, "again"), f)
		wantEqual(w, "the state", w.job(id).State, job.Succeeded)
	}
}
