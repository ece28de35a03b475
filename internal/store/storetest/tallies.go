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
		{"the last end of a tally sees that it is the last, also with others in one batch", tallyZero},
		{"a tally is kept until its last job is removed", tallyRemoved},
		{"a tally survives a reopening", tallyDurable},
	}
}

func withTally(name string) func(*store.Submit) {
	return func(s *store.Submit) { s.Job.Tally = name }
}

func (w *harness) wantTally(owner job.Owner, name string, want job.Counts) {
	w.Helper()
	got, err := w.store.Tally(w.ctx, owner, name)
	wantEqual(w, fmt.Sprintf("the tally (%v)", err), got, want)
}

func tallyCounts(w *harness) {
	w.wantTally(mine, "t", job.Counts{})
	w.submit()
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	in := withTally("t")
	first := w.submit(in, withKey("k"), withInputBytes(3))
	w.submit(in, withKey("k"), withInputBytes(5))
	late := w.submit(in, delayed(time.Hour), withInputBytes(7))
	w.wantTally(mine, "t", job.Counts{Queued: 1, Parked: 1, Scheduled: 1, WaitingBytes: 15})
	w.do(newCancel(first), newCancel(late))
	w.wantTally(mine, "t", job.Counts{Queued: 1, Cancelled: 2, WaitingBytes: 5})
	w.do(newRetry(first))
	w.wantTally(mine, "t", job.Counts{Queued: 1, Parked: 1, Cancelled: 2, Retried: 1, WaitingBytes: 8})
	c := w.running(inQueue("other"), in)
	w.wantTally(mine, "t", job.Counts{Queued: 1, Parked: 1, Running: 1, Cancelled: 2, Retried: 1, WaitingBytes: 8})
	w.do(newFinish(c.Lease(), job.Scheduled))
	w.wantTally(mine, "t", job.Counts{Queued: 1, Parked: 1, Scheduled: 1, Cancelled: 2, Retried: 1, WaitingBytes: 8})
}

func tallyOwners(w *harness) {
	w.submit(withTally("t"))
	w.submit(withTally("t"), inQueue("other"))
	w.submit(withTally("u"))
	w.submit(withTally("t"), ownedBy(theirs))
	w.wantTally(mine, "t", job.Counts{Queued: 2})
	w.wantTally(mine, "u", job.Counts{Queued: 1})
	w.wantTally(theirs, "t", job.Counts{Queued: 1})
	w.wantTally(elsewhere, "t", job.Counts{})
}

func tallyZero(w *harness) {
	a, b, c := w.running(withTally("t")), w.running(withTally("t")), w.submit(withTally("t"))
	made := w.do(newFinish(a.Lease(), job.Succeeded)).FollowUps
	wantEqual(w, "the jobs made by the first end", len(made), 0)
	made = w.do(newFinish(b.Lease(), job.Failed), newCancel(c)).FollowUps
	wantEqual(w, "the jobs made by the last ends", len(made), 1)
	wantEqual(w, "the parent", made[0].Metadata["parent"], c.String())
	w.do(newRetry(c))
	w.advance(time.Second)
	made = w.do(newCancel(c)).FollowUps
	wantEqual(w, "the jobs made when a retried job ends again", len(made), 1)
	alone := w.submit(withTally("u"))
	made = w.do(newDelete(alone)).FollowUps
	wantEqual(w, "the jobs made by a delete", len(made), 1)
}

func tallyRemoved(w *harness) {
	a, b := w.running(withTally("t")), w.running(withTally("t"))
	w.do(newFinish(a.Lease(), job.Succeeded), newFinish(b.Lease(), job.Succeeded))
	w.do(newDelete(a.Job.ID))
	w.wantTally(mine, "t", job.Counts{Succeeded: 2})
	w.advance(day)
	w.do(newPrune())
	w.wantGone(mine, b.Job.ID)
	w.wantTally(mine, "t", job.Counts{})
	w.submit(withTally("t"))
	w.wantTally(mine, "t", job.Counts{Queued: 1})
}

func tallyDurable(w *harness) {
	w.do(newFinish(w.running(withTally("t")).Lease(), job.Succeeded))
	w.submit(withTally("t"))
	w.reopen()
	w.wantTally(mine, "t", job.Counts{Queued: 1, Succeeded: 1})
	made := w.do(newFinish(w.claimOne(queue).Lease(), job.Failed)).FollowUps
	wantEqual(w, "the jobs made", len(made), 1)
}
