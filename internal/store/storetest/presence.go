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

func seen(ids ...job.ID) *store.Presence { return &store.Presence{Jobs: ids} }

func newAbandon(id job.ID) *store.Cancel {
	c := newCancel(id)
	c.IfAbandoned = true
	return c
}

// abandonable checks which jobs are listed, in the order in which their timeouts ran out,
// and that each is listed as it is read.
func (w *harness) abandonable(want ...job.ID) {
	w.Helper()
	got := swept(w, w.store.Abandonable)
	equal(w, "the abandonable jobs", fmt.Sprint(ids(got)), fmt.Sprint(want))
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
		w.pass(time.Second)
	}
	running := w.running(inQueue("running"), mayBeAbandoned)
	w.do(newAppend(running.Lease(), 1, 0, "said"))
	w.pass(time.Second)
	scheduled := w.submit(delayed(time.Hour), mayBeAbandoned)
	w.abandonable()
	w.pass(abandonAfter - 6*time.Second)
	w.abandonable(all[0])
	w.pass(time.Minute)
	w.abandonable(append(all, running.Job.ID, scheduled)...)
}

func presenceOfJob(w *harness) {
	a, b := w.submit(mayBeAbandoned), w.submit(mayBeAbandoned)
	w.pass(time.Minute)
	w.do(seen(a, w.id(), w.submit()))
	w.pass(time.Minute)
	w.abandonable(b)
	w.do(seen(b))
	w.abandonable()
	w.pass(time.Minute)
	w.abandonable(a)
}

func presenceOfOwner(w *harness) {
	a, b, other := w.submit(mayBeAbandoned), w.submit(mayBeAbandoned), w.submit(mayBeAbandoned, ownedBy(elsewhere))
	w.pass(time.Minute)
	w.do(&store.Presence{Owners: []job.Owner{mine, theirs}})
	w.pass(time.Minute)
	w.abandonable(other)
	w.pass(time.Minute)
	w.abandonable(other, a, b)
}

func presenceCancel(w *harness) {
	waiting, running := w.submit(mayBeAbandoned), w.running(inQueue("running"), mayBeAbandoned)
	plain := w.submit()
	w.refused(job.Conflict, newAbandon(waiting), newAbandon(running.Job.ID), newAbandon(plain))
	w.refused(job.NotFound, newAbandon(w.id()))
	w.pass(abandonAfter)
	late := newAbandon(waiting)
	w.try(seen(waiting), late) // in one batch the presence comes first
	w.coded(job.Conflict, late.Err)
	w.do(newAbandon(running.Job.ID))
	w.pass(abandonAfter)
	c := newAbandon(waiting)
	w.do(c)
	equal(w, "whether the waiting job ended", c.Ended, true)
	w.refused(job.Conflict, newAbandon(waiting))
}

func presenceEnds(w *harness) {
	ended, deleted, stopped := w.running(inQueue("running"), mayBeAbandoned), w.running(inQueue("running"), mayBeAbandoned), w.running(inQueue("running"), mayBeAbandoned)
	cancelled, gone, expired := w.submit(mayBeAbandoned), w.submit(mayBeAbandoned), w.submit(mayBeAbandoned, patient(time.Second))
	w.do(newFinish(ended.Lease(), job.Succeeded), newDelete(deleted.Job.ID), newCancel(stopped.Job.ID), newCancel(cancelled), newDelete(gone))
	w.pass(2 * abandonAfter)
	w.do(newDue())
	equal(w, "the state", w.job(expired).State, job.Expired)
	w.abandonable()
	w.do(seen(ended.Job.ID, deleted.Job.ID, stopped.Job.ID, cancelled, gone, expired))
	w.pass(2 * abandonAfter)
	w.abandonable()
	back := newFinish(stopped.Lease(), job.Queued)
	w.do(back, newFinish(deleted.Lease(), job.Queued))
	w.abandonable()
}

func presenceRetry(w *harness) {
	id := w.submit(mayBeAbandoned)
	w.do(newCancel(id))
	w.pass(abandonAfter)
	w.do(newRetry(id))
	w.pass(abandonAfter - time.Second)
	w.abandonable()
	w.pass(time.Second)
	w.abandonable(id)
}

func presenceDurable(w *harness) {
	id := w.submit(mayBeAbandoned)
	w.pass(time.Minute)
	w.do(seen(id))
	w.reopen()
	w.pass(time.Minute)
	w.abandonable()
	w.reopen()
	w.pass(time.Minute)
	w.abandonable(id)
}
