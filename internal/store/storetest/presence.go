package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func presenceRules() []rule {
	return []rule{
		{"a job of any owner is abandonable once its timeout has passed without a presence", presenceListed},
		{"a presence of a job restarts its timeout only", presenceOfJob},
		{"a presence of an owner restarts the timeouts of all jobs of the owner", presenceOfOwner},
		{"a cancel of an abandoned job is refused after a presence", presenceCancel},
		{"an ended, deleted or cancelled job is not abandonable", presenceEnds},
		{"a retry restarts the timeout", presenceRetry},
		{"a presence survives a reopening", presenceDurable},
	}
}

const abandonAfter = 2 * time.Minute

func mayBeAbandoned(s *store.Submit) { s.Job.Policy.Timeouts.Abandon = abandonAfter }

func newPresence(ids ...job.ID) *store.Presence { return &store.Presence{Jobs: ids} }

func newAbandon(id job.ID) *store.Cancel {
	c := newCancel(id)
	c.IfAbandoned = true
	return c
}

// wantAbandonable checks that exactly these jobs are listed, in the order in which their timeouts
// ran out, and that a listed job equals the job that a read returns.
func (w *harness) wantAbandonable(want ...job.ID) {
	w.Helper()
	got := readAllPages(w, w.store.Abandonable)
	wantEqual(w, "the abandonable jobs", fmt.Sprint(ids(got)), fmt.Sprint(want))
	for _, j := range got {
		read, err := w.store.Job(w.ctx, j.Owner, j.ID)
		if err != nil || text(j) != text(read) {
			w.Errorf("a job is listed as\n  %s, and read as\n  %s, %v", text(j), text(read), err)
		}
	}
}

func presenceListed(w *harness) {
	var all []job.ID
	for i := range 5 {
		w.submit()
		all = append(all, w.submit(mayBeAbandoned, ownedBy([]job.Owner{mine, elsewhere}[i%2])))
		w.advance(time.Second)
	}
	running := w.running(inQueue("running"), mayBeAbandoned)
	w.do(newAppend(running.Lease(), 1, 0, "text"))
	w.advance(time.Second)
	scheduled := w.submit(delayed(time.Hour), mayBeAbandoned)
	w.wantAbandonable()
	w.advance(abandonAfter - 6*time.Second)
	w.wantAbandonable(all[0])
	w.advance(time.Minute)
	w.wantAbandonable(append(all, running.Job.ID, scheduled)...)
}

func presenceOfJob(w *harness) {
	a, b := w.submit(mayBeAbandoned), w.submit(mayBeAbandoned)
	w.advance(time.Minute)
	w.do(newPresence(a, w.id(), w.submit()))
	w.advance(time.Minute)
	w.wantAbandonable(b)
	w.do(newPresence(b))
	w.wantAbandonable()
	w.advance(time.Minute)
	w.wantAbandonable(a)
}

func presenceOfOwner(w *harness) {
	a, b, other := w.submit(mayBeAbandoned), w.submit(mayBeAbandoned), w.submit(mayBeAbandoned, ownedBy(elsewhere))
	w.advance(time.Minute)
	w.do(&store.Presence{Owners: []job.Owner{mine, theirs}})
	w.advance(time.Minute)
	w.wantAbandonable(other)
	w.advance(time.Minute)
	w.wantAbandonable(other, a, b)
}

func presenceCancel(w *harness) {
	waiting, running := w.submit(mayBeAbandoned), w.running(inQueue("running"), mayBeAbandoned)
	plain := w.submit()
	w.mustRefuse(job.Conflict, newAbandon(waiting), newAbandon(running.Job.ID), newAbandon(plain))
	w.mustRefuse(job.NotFound, newAbandon(w.id()))
	w.advance(abandonAfter)
	late := newAbandon(waiting)
	w.try(newPresence(waiting), late) // in one batch the presence applies first
	w.wantCode(job.Conflict, late.Err)
	w.do(newAbandon(running.Job.ID))
	w.advance(abandonAfter)
	c := newAbandon(waiting)
	w.do(c)
	wantEqual(w, "whether the waiting job ended", c.Ended, true)
	w.mustRefuse(job.Conflict, newAbandon(waiting))
}

func presenceEnds(w *harness) {
	ended, deleted, stopped := w.running(inQueue("running"), mayBeAbandoned), w.running(inQueue("running"), mayBeAbandoned), w.running(inQueue("running"), mayBeAbandoned)
	cancelled, gone, expired := w.submit(mayBeAbandoned), w.submit(mayBeAbandoned), w.submit(mayBeAbandoned, withQueueTimeout(time.Second))
	w.do(newFinish(ended.Lease(), job.Succeeded), newDelete(deleted.Job.ID), newCancel(stopped.Job.ID), newCancel(cancelled), newDelete(gone))
	w.advance(2 * abandonAfter)
	w.do(newDue())
	wantEqual(w, "the state", w.job(expired).State, job.Expired)
	w.wantAbandonable()
	w.do(newPresence(ended.Job.ID, deleted.Job.ID, stopped.Job.ID, cancelled, gone, expired))
	w.advance(2 * abandonAfter)
	w.wantAbandonable()
	back := newFinish(stopped.Lease(), job.Queued)
	w.do(back, newFinish(deleted.Lease(), job.Queued))
	w.wantAbandonable()
}

func presenceRetry(w *harness) {
	id := w.submit(mayBeAbandoned)
	w.do(newCancel(id))
	w.advance(abandonAfter)
	w.do(newRetry(id))
	w.advance(abandonAfter - time.Second)
	w.wantAbandonable()
	w.advance(time.Second)
	w.wantAbandonable(id)
}

func presenceDurable(w *harness) {
	id := w.submit(mayBeAbandoned)
	w.advance(time.Minute)
	w.do(newPresence(id))
	w.reopen()
	w.advance(time.Minute)
	w.wantAbandonable()
	w.reopen()
	w.advance(time.Minute)
	w.wantAbandonable(id)
}
