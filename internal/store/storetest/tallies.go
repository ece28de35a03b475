package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func tallyRules() []rule {
	return []rule{
		{"a tally counts its jobs as a queue does", tallyCounts},
		{"a tally belongs to its owner and spans queues", tallyOwners},
		{"the end that leaves nothing unfinished sees so, also beside others in one batch", tallyZero},
		{"a tally is kept until its last job is removed", tallyRemoved},
		{"a tally survives a reopening", tallyDurable},
	}
}

func tallied(name string) func(*store.Submit) {
	return func(s *store.Submit) { s.Job.Tally = name }
}

func (w *harness) tally(owner job.Owner, name string, want job.Counts) {
	w.Helper()
	got, err := w.store.Tally(w.ctx, owner, name)
	equal(w, fmt.Sprintf("the tally (%v)", err), got, want)
}

func tallyCounts(w *harness) {
	w.tally(mine, "t", job.Counts{})
	w.submit()
	w.limit(queue, job.Limits{KeyRunning: 1})
	in := tallied("t")
	first := w.submit(in, withKey("k"), weighing(3))
	w.submit(in, withKey("k"), weighing(5))
	late := w.submit(in, delayed(time.Hour), weighing(7))
	w.tally(mine, "t", job.Counts{Queued: 1, Parked: 1, Scheduled: 1, WaitingBytes: 15})
	w.do(newCancel(first), newCancel(late))
	w.tally(mine, "t", job.Counts{Queued: 1, Cancelled: 2, WaitingBytes: 5})
	w.do(newRetry(first))
	w.tally(mine, "t", job.Counts{Queued: 1, Parked: 1, Cancelled: 2, Retried: 1, WaitingBytes: 8})
	c := w.running(inQueue("other"), in)
	w.tally(mine, "t", job.Counts{Queued: 1, Parked: 1, Running: 1, Cancelled: 2, Retried: 1, WaitingBytes: 8})
	w.do(newFinish(c.Lease(), job.Scheduled))
	w.tally(mine, "t", job.Counts{Queued: 1, Parked: 1, Scheduled: 1, Cancelled: 2, Retried: 1, WaitingBytes: 8})
}

func tallyOwners(w *harness) {
	w.submit(tallied("t"))
	w.submit(tallied("t"), inQueue("other"))
	w.submit(tallied("u"))
	w.submit(tallied("t"), ownedBy(theirs))
	w.tally(mine, "t", job.Counts{Queued: 2})
	w.tally(mine, "u", job.Counts{Queued: 1})
	w.tally(theirs, "t", job.Counts{Queued: 1})
	w.tally(elsewhere, "t", job.Counts{})
}

func tallyZero(w *harness) {
	a, b, c := w.running(tallied("t")), w.running(tallied("t")), w.submit(tallied("t"))
	made := w.do(newFinish(a.Lease(), job.Succeeded)).FollowUps
	equal(w, "the jobs made by the first end", len(made), 0)
	made = w.do(newFinish(b.Lease(), job.Failed), newCancel(c)).FollowUps
	equal(w, "the jobs made by the last ends", len(made), 1)
	equal(w, "the parent", made[0].Metadata["parent"], c.String())
	w.do(newRetry(c))
	w.pass(time.Second)
	made = w.do(newCancel(c)).FollowUps
	equal(w, "the jobs made when a retried job ends again", len(made), 1)
	alone := w.submit(tallied("u"))
	made = w.do(newDelete(alone)).FollowUps
	equal(w, "the jobs made by a delete", len(made), 1)
}

func tallyRemoved(w *harness) {
	a, b := w.running(tallied("t")), w.running(tallied("t"))
	w.do(newFinish(a.Lease(), job.Succeeded), newFinish(b.Lease(), job.Succeeded))
	w.do(newDelete(a.Job.ID))
	w.tally(mine, "t", job.Counts{Succeeded: 2})
	w.pass(day)
	w.do(newPrune())
	w.gone(mine, b.Job.ID)
	w.tally(mine, "t", job.Counts{})
	w.submit(tallied("t"))
	w.tally(mine, "t", job.Counts{Queued: 1})
}

func tallyDurable(w *harness) {
	w.do(newFinish(w.running(tallied("t")).Lease(), job.Succeeded))
	w.submit(tallied("t"))
	w.reopen()
	w.tally(mine, "t", job.Counts{Queued: 1, Succeeded: 1})
	made := w.do(newFinish(w.claimOne(queue).Lease(), job.Failed)).FollowUps
	equal(w, "the jobs made", len(made), 1)
}
