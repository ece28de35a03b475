package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func cancelRules() []rule {
	return []rule{
		{"a cancel ends a waiting job at once", cancelWaiting},
		{"a running job keeps the first cancel request and goes on", cancelRunning},
		{"a cancel does not change an ended job", cancelEnded},
		{"after an acknowledged cancel the job ends as cancelled, whatever its finish asks for", cancelThenFinish},
		{"after an acknowledged cancel a sweep ends the job as cancelled", cancelThenSweep},
		{"a cancelled job is not claimed", cancelThenClaim},
		{"a job that ended before the cancel keeps its end", finishThenCancel},
		{"a cancel ends a job that was released before it", releaseThenCancel},
		{"a cancel request is listed when it is older than the job's cancel grace", cancelListed},
		{"a cancel of an unknown job is not found", cancelUnknown},
	}
}

func cancelWaiting(w *harness) {
	for _, id := range []job.ID{w.submit(withKeep(33 * time.Minute)), w.submit(withKeep(33*time.Minute), delayed(time.Minute))} {
		w.advance(time.Second)
		c := newCancel(id)
		w.do(c)
		j := w.job(id)
		wantEqual(w, "the state", j.State, job.Cancelled)
		wantEqual(w, "whether this cancel ended it", c.Ended, true)
		wantEqual(w, "the answered job", text(c.Job), text(j))
		w.wantTime("FinishedAt", j.FinishedAt, w.now())
		w.wantTime("ExpiresAt", j.ExpiresAt, w.now().Add(33*time.Minute))
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Cancelled: 2})
}

func cancelRunning(w *harness) {
	c := w.running()
	w.advance(time.Second)
	requested := w.now()
	for range 3 {
		op := newCancel(c.Job.ID)
		w.do(op)
		j := w.job(c.Job.ID)
		wantEqual(w, "the state", j.State, job.Running)
		wantEqual(w, "whether this cancel ended it", op.Ended, false)
		wantEqual(w, "the answered job", text(op.Job), text(j))
		w.wantTime("CancelRequestedAt", j.CancelRequestedAt, requested)
		w.advance(time.Second)
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Running: 1})
}

func cancelEnded(w *harness) {
	for _, state := range reachable() {
		if !state.Ended() {
			continue
		}
		id, _ := w.inState(state)
		w.advance(time.Second)
		before := w.stored()
		c := newCancel(id)
		w.do(c)
		wantEqual(w, "whether this cancel ended it", c.Ended, false)
		wantEqual(w, "the answered job", text(c.Job), text(w.job(id)))
		w.sameStored("a cancel changed an ended job", before, w.stored())
	}
}

func cancelThenFinish(w *harness) {
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled, job.Queued} {
		c := w.running()
		w.do(newCancel(c.Job.ID))
		w.advance(time.Second)
		f := newFinish(c.Lease(), to)
		f.Entries = textEntries(1, 0, "the last words")
		f.Result = &job.Result{Body: []byte("not to be kept")}
		f.Refund = to == job.Queued
		w.do(f)
		wantEqual(w, "the answered state", f.State, job.Cancelled)
		j := w.job(c.Job.ID)
		wantEqual(w, "the state after a finish as "+to.String(), j.State, job.Cancelled)
		wantEqual(w, "the output", w.textOf(j.ID), "the last words")
		w.wantTime("FinishedAt", j.FinishedAt, w.now())
		w.wantTime("ExpiresAt", j.ExpiresAt, w.now().Add(keep))
		_, err := w.result(mine, j.ID)
		w.wantCode(job.NotFinished, err)
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Cancelled: 5})
}

func cancelThenSweep(w *harness) {
	c := w.running()
	w.do(newCancel(c.Job.ID))
	w.advance(leaseFor + time.Second)
	f := newLapse(c.Lease(), job.Queued)
	w.do(f)
	wantEqual(w, "the state of the job", f.State, job.Cancelled)
	wantEqual(w, "the jobs left to claim", len(w.claim(queue, 1)), 0)
}

func cancelThenClaim(w *harness) {
	first, both := w.submit(), w.submit()
	w.do(newCancel(first))
	claim := w.newClaim(queue, 5)
	w.do(newCancel(both), claim)
	wantEqual(w, "the jobs claimed after and with their cancel", len(claim.Claimed), 0)

	c := w.running()
	cancel := newCancel(c.Job.ID)
	w.do(cancel)
	wantEqual(w, "whether a cancel after the claim ended the job", cancel.Ended, false)
}

func finishThenCancel(w *harness) {
	c := w.running()
	f, cancel := newFinish(c.Lease(), job.Succeeded), newCancel(c.Job.ID)
	w.do(f, cancel)
	wantEqual(w, "the state of the job", f.State, job.Succeeded)
	wantEqual(w, "whether the cancel ended it", cancel.Ended, false)
	wantEqual(w, "the job as the cancel left it", text(cancel.Job), text(w.job(c.Job.ID)))
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Succeeded: 1})
}

func releaseThenCancel(w *harness) {
	for _, to := range []job.State{job.Queued, job.Scheduled} {
		c := w.running()
		f, cancel := newFinish(c.Lease(), to), newCancel(c.Job.ID)
		w.do(f, cancel)
		wantEqual(w, "where the finish put the job", f.State, to)
		wantEqual(w, "whether the cancel ended it", cancel.Ended, true)
		wantEqual(w, "the state", w.job(c.Job.ID).State, job.Cancelled)
	}
	wantEqual(w, "the jobs left to claim", len(w.claim(queue, 1)), 0)
}

func cancelListed(w *harness) {
	w.submitMany(3)
	claimed := w.claim(queue, 3)
	w.do(newCancel(claimed[0].Job.ID))
	w.advance(cancelGrace - time.Second)
	wantEqual(w, "the requests listed within the grace", len(w.listRunning(store.CancelOnly)), 0)
	w.do(newCancel(claimed[1].Job.ID))
	w.advance(2 * time.Second)
	late := w.listRunning(store.CancelOnly)
	if len(late) != 1 || late[0].Job.ID != claimed[0].Job.ID || late[0].Token != claimed[0].Token {
		w.Errorf("the requests past their grace are %+v", late)
	}
	w.do(newFinish(claimed[0].Lease(), job.Cancelled))
	wantEqual(w, "the requests listed after the end", len(w.listRunning(store.CancelOnly)), 0)
}

func cancelUnknown(w *harness) {
	w.submit()
	w.mustRefuse(job.NotFound, newCancel(w.id()), newCancel(job.ID{}))
}
