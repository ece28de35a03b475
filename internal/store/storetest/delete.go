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
		{"a delete answers whether the job was running", deleteAnswersRunning},
		{"a second delete applies for the owner and is not found for others", deleteAgain},
		{"a delete is forgotten after a day", deleteForgotten},
		{"a delete of an unknown job is not found", deleteUnknown},
		{"a delete of a pruned job is not found", deletePruned},
		{"a deleted job is not claimed, does not become due and does not expire", deleteThenClaim},
		{"a delete is remembered after a reopening", long(deleteReopened)},
	}
}

func deleteWaiting(w *harness) {
	for _, id := range []job.ID{w.submit(), w.submit(delayed(time.Minute)), w.submit(withQueueTimeout(time.Minute))} {
		w.do(newDelete(id))
		w.wantGone(mine, id)
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Cancelled: 3})
}

func deleteEnded(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "text"), newFinish(c.Lease(), job.Succeeded))
	w.do(newDelete(c.Job.ID))
	w.wantGone(mine, c.Job.ID)
	for _, state := range []job.State{job.Failed, job.Cancelled, job.Expired} {
		id, _ := w.inState(state)
		w.do(newDelete(id))
		w.wantGone(mine, id)
	}
	for q, c := range map[string]job.Counts{queue: {Succeeded: 1}, "failed": {Failed: 1}, "cancelled": {Cancelled: 1}, "expired": {Expired: 1}} {
		wantEqual(w, "the counts of "+q, w.counts(q), c)
	}
}

func deleteRunning(w *harness) {
	c := w.running()
	w.do(newDelete(c.Job.ID))
	w.wantGone(mine, c.Job.ID)
	wantEqual(w, "the counts while it runs", w.counts(queue), job.Counts{Running: 1})
	running := w.listRunning(store.AllRunning)
	if len(running) != 1 || running[0].Token != c.Token {
		w.Fatalf("the running job is not listed: %+v", running)
	}
	w.advance(time.Second)
	renew, output := newRenew(c.Lease(), leaseFor), newAppend(c.Lease(), 1, 0, "still here")
	w.do(renew, output)
	wantEqual(w, "the cancel request in a renewal", renew.CancelRequested, true)
	wantEqual(w, "the cancel request in an append", output.CancelRequested, true)
	w.wantGone(mine, c.Job.ID)
	w.advance(cancelGrace + time.Second)
	wantEqual(w, "the requests past their grace", len(w.listRunning(store.CancelOnly)), 1)

	f := newFinish(c.Lease(), job.Cancelled)
	w.do(f)
	wantEqual(w, "the state of the job", f.State, job.Cancelled)
	w.wantGone(mine, c.Job.ID)
	wantEqual(w, "the running jobs", len(w.listRunning(store.AllRunning)), 0)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Cancelled: 1})
}

func deleteThenFinish(w *harness) {
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled, job.Queued} {
		c := w.running()
		w.do(newDelete(c.Job.ID))
		f := newFinish(c.Lease(), to)
		f.Entries = textEntries(1, 0, "the last words")
		claim := w.newClaim(queue, 1)
		w.do(f, claim)
		wantEqual(w, "where the finish as "+to.String()+" put the job", f.State, job.Cancelled)
		wantEqual(w, "the jobs left to claim", len(claim.Claimed), 0)
		w.wantGone(mine, c.Job.ID)
		w.wantLeaseRefused(c.Lease())
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Cancelled: 5})
}

func deleteRunningHides(w *harness) {
	c := w.running()
	w.do(newDelete(c.Job.ID))
	w.mustRefuse(job.NotFound, newCancel(c.Job.ID), newRetry(c.Job.ID),
		&store.Delete{Owner: theirs, ID: c.Job.ID}, &store.Delete{Owner: elsewhere, ID: c.Job.ID})
	w.do(newDelete(c.Job.ID))
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.mustRefuse(job.NotFound, newCancel(c.Job.ID), newRetry(c.Job.ID))
	w.do(newDelete(c.Job.ID))
}

func deleteAnswersRunning(w *harness) {
	for _, state := range reachable() {
		id, _ := w.inState(state)
		d := newDelete(id)
		w.do(d)
		wantEqual(w, "whether the "+state.String()+" job was running", d.Running, state == job.Running)
	}
}

func deleteAgain(w *harness) {
	for _, state := range reachable() {
		id, _ := w.inState(state)
		w.do(newDelete(id))
		before := w.stored()
		for range 2 {
			w.do(newDelete(id))
			w.mustRefuse(job.NotFound, &store.Delete{Owner: theirs, ID: id}, &store.Delete{Owner: elsewhere, ID: id})
		}
		w.sameStored("deleting again changed the store", before, w.stored())
	}
	id := w.submit()
	twice := []any{newDelete(id), newDelete(id)}
	w.do(twice...)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Cancelled: 1})
}

func deleteForgotten(w *harness) {
	id := w.submit()
	w.do(newDelete(id))
	w.advance(day - time.Minute)
	w.do(newPrune())
	w.do(newDelete(id))
	w.advance(2 * day)
	w.do(newPrune())
	w.do(newPrune())
	w.mustRefuse(job.NotFound, newDelete(id))
}

func deleteUnknown(w *harness) {
	w.submit()
	w.mustRefuse(job.NotFound, newDelete(w.id()), newDelete(job.ID{}))
}

func deletePruned(w *harness) {
	id, _ := w.inState(job.Succeeded)
	w.advance(keep + time.Minute)
	w.do(newPrune())
	w.wantGone(mine, id)
	w.mustRefuse(job.NotFound, newDelete(id))
}

func deleteThenClaim(w *harness) {
	ready, late, expiring := w.submit(), w.submit(delayed(time.Second)), w.submit(withQueueTimeout(time.Second))
	claim := w.newClaim(queue, 5)
	w.do(newDelete(ready), claim)
	wantEqual(w, "the deleted job among the claimed", len(claim.Claimed) == 1 && claim.Claimed[0].Job.ID == expiring, true)
	w.do(newFinish(claim.Claimed[0].Lease(), job.Queued))
	w.do(newDelete(late), newDelete(expiring))
	laterReady, expires, err := w.store.NextDue(w.ctx)
	if err != nil || !laterReady.IsZero() || !expires.IsZero() {
		w.Errorf("something is due after all was deleted: %v, %v, %v", laterReady, expires, err)
	}
	w.advance(time.Minute)
	due := newDue()
	w.do(due)
	wantEqual(w, "the jobs made ready", due.Ready, 0)
	wantEqual(w, "the jobs expired", len(due.Expired), 0)
	wantEqual(w, "the jobs claimed", len(w.claim(queue, 5)), 0)
}

func deleteReopened(w *harness) {
	waiting := w.submit()
	c := w.running(inQueue("other"))
	w.do(newDelete(waiting), newDelete(c.Job.ID))
	w.reopen()
	w.wantGone(mine, waiting)
	w.wantGone(mine, c.Job.ID)
	w.do(newDelete(waiting), newDelete(c.Job.ID))
	f := newFinish(c.Lease(), job.Succeeded)
	w.do(f)
	wantEqual(w, "the state of the job", f.State, job.Cancelled)
	w.reopen()
	w.wantGone(mine, c.Job.ID)
	w.do(newDelete(c.Job.ID))
}
