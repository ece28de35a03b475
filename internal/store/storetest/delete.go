package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func deleteRules() []rule {
	return []rule{
		{"a delete removes a waiting job at once and counts it as cancelled", deleteWaiting},
		{"a delete removes an ended job with its input, output and result", deleteEnded},
		{"a deleted running job is hidden from reads at once and removed at its end", deleteRunning},
		{"a deleted running job ends as cancelled, whatever its finish asks for", deleteThenFinish},
		{"a deleted running job cannot be cancelled, retried or deleted by others", deleteRunningHides},
		{"a delete says whether the job was running", deleteSaysRunning},
		{"a second delete applies for the owner and is not found for others", deleteAgain},
		{"a delete is forgotten after a day", deleteForgotten},
		{"a delete of an unknown job is not found", deleteUnknown},
		{"a delete of a pruned job is not found", deletePruned},
		{"a deleted job is not claimed, does not become due and does not expire", deleteThenClaim},
		{"a delete is remembered after a reopening", long(deleteReopened)},
	}
}

func deleteWaiting(w *harness) {
	for _, id := range []job.ID{w.submit(), w.submit(delayed(time.Minute)), w.submit(patient(time.Minute))} {
		w.do(newDelete(id))
		w.gone(mine, id)
	}
	equal(w, "the counts", w.counts(queue), job.Counts{Cancelled: 3})
}

func deleteEnded(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "said"), newFinish(c.Lease(), job.Succeeded))
	w.do(newDelete(c.Job.ID))
	w.gone(mine, c.Job.ID)
	for _, state := range []job.State{job.Failed, job.Cancelled, job.Expired} {
		id, _ := w.inState(state)
		w.do(newDelete(id))
		w.gone(mine, id)
	}
	for q, c := range map[string]job.Counts{queue: {Succeeded: 1}, "failed": {Failed: 1}, "cancelled": {Cancelled: 1}, "expired": {Expired: 1}} {
		equal(w, "the counts of "+q, w.counts(q), c)
	}
}

func deleteRunning(w *harness) {
	c := w.running()
	w.do(newDelete(c.Job.ID))
	w.gone(mine, c.Job.ID)
	equal(w, "the counts while it runs", w.counts(queue), job.Counts{Running: 1})
	running := w.listRunning(store.AllRunning)
	if len(running) != 1 || running[0].Token != c.Token {
		w.Fatalf("the work that still goes on is not listed: %+v", running)
	}
	w.pass(time.Second)
	renew, say := newRenew(c.Lease(), leaseFor), newAppend(c.Lease(), 1, 0, "still here")
	w.do(renew, say)
	equal(w, "a renewal told to stop", renew.CancelRequested, true)
	equal(w, "an append told to stop", say.CancelRequested, true)
	w.gone(mine, c.Job.ID)
	w.pass(cancelGrace + time.Second)
	equal(w, "the requests past their grace", len(w.listRunning(store.CancelOnly)), 1)

	f := newFinish(c.Lease(), job.Cancelled)
	w.do(f)
	equal(w, "where the job went", f.State, job.Cancelled)
	w.gone(mine, c.Job.ID)
	equal(w, "the running jobs", len(w.listRunning(store.AllRunning)), 0)
	equal(w, "the counts", w.counts(queue), job.Counts{Cancelled: 1})
}

func deleteThenFinish(w *harness) {
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled, job.Queued} {
		c := w.running()
		w.do(newDelete(c.Job.ID))
		f := newFinish(c.Lease(), to)
		f.Entries = texted(1, 0, "the last words")
		claim := w.newClaim(queue, 1)
		w.do(f, claim)
		equal(w, "where the finish as "+to.String()+" put the job", f.State, job.Cancelled)
		equal(w, "the jobs left to claim", len(claim.Claimed), 0)
		w.gone(mine, c.Job.ID)
		w.fenced(c.Lease())
	}
	equal(w, "the counts", w.counts(queue), job.Counts{Cancelled: 5})
}

func deleteRunningHides(w *harness) {
	c := w.running()
	w.do(newDelete(c.Job.ID))
	w.refused(job.NotFound, newCancel(c.Job.ID), newRetry(c.Job.ID),
		&store.Delete{Owner: theirs, ID: c.Job.ID}, &store.Delete{Owner: elsewhere, ID: c.Job.ID})
	w.do(newDelete(c.Job.ID))
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.refused(job.NotFound, newCancel(c.Job.ID), newRetry(c.Job.ID))
	w.do(newDelete(c.Job.ID))
}

func deleteSaysRunning(w *harness) {
	for _, state := range reachable() {
		id, _ := w.inState(state)
		d := newDelete(id)
		w.do(d)
		equal(w, "whether the "+state.String()+" job was running", d.Running, state == job.Running)
	}
}

func deleteAgain(w *harness) {
	for _, state := range reachable() {
		id, _ := w.inState(state)
		w.do(newDelete(id))
		before := w.stored()
		for range 2 {
			w.do(newDelete(id))
			w.refused(job.NotFound, &store.Delete{Owner: theirs, ID: id}, &store.Delete{Owner: elsewhere, ID: id})
		}
		w.sameStored("deleting again changed the store", before, w.stored())
	}
	id := w.submit()
	twice := []any{newDelete(id), newDelete(id)}
	w.do(twice...)
	equal(w, "the counts", w.counts(queue), job.Counts{Cancelled: 1})
}

func deleteForgotten(w *harness) {
	id := w.submit()
	w.do(newDelete(id))
	w.pass(day - time.Minute)
	w.do(newPrune())
	w.do(newDelete(id))
	w.pass(2 * day)
	w.do(newPrune())
	w.do(newPrune())
	w.refused(job.NotFound, newDelete(id))
}

func deleteUnknown(w *harness) {
	w.submit()
	w.refused(job.NotFound, newDelete(w.id()), newDelete(job.ID{}))
}

func deletePruned(w *harness) {
	id, _ := w.inState(job.Succeeded)
	w.pass(keep + time.Minute)
	w.do(newPrune())
	w.gone(mine, id)
	w.refused(job.NotFound, newDelete(id))
}

func deleteThenClaim(w *harness) {
	ready, late, impatient := w.submit(), w.submit(delayed(time.Second)), w.submit(patient(time.Second))
	claim := w.newClaim(queue, 5)
	w.do(newDelete(ready), claim)
	equal(w, "the deleted job among the claimed", len(claim.Claimed) == 1 && claim.Claimed[0].Job.ID == impatient, true)
	w.do(newFinish(claim.Claimed[0].Lease(), job.Queued))
	w.do(newDelete(late), newDelete(impatient))
	ready1, expires, err := w.store.NextDue(w.ctx)
	if err != nil || !ready1.IsZero() || !expires.IsZero() {
		w.Errorf("something is due after all was deleted: %v, %v, %v", ready1, expires, err)
	}
	w.pass(time.Minute)
	due := newDue()
	w.do(due)
	equal(w, "the jobs made ready", due.Ready, 0)
	equal(w, "the jobs expired", len(due.Expired), 0)
	equal(w, "the jobs claimed", len(w.claim(queue, 5)), 0)
}

func deleteReopened(w *harness) {
	waiting := w.submit()
	c := w.running(inQueue("other"))
	w.do(newDelete(waiting), newDelete(c.Job.ID))
	w.reopen()
	w.gone(mine, waiting)
	w.gone(mine, c.Job.ID)
	w.do(newDelete(waiting), newDelete(c.Job.ID))
	f := newFinish(c.Lease(), job.Succeeded)
	w.do(f)
	equal(w, "where the job went", f.State, job.Cancelled)
	w.reopen()
	w.gone(mine, c.Job.ID)
	w.do(newDelete(c.Job.ID))
}
