package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func pauseRules() []rule {
	return []rule{
		{"a paused queue leases no jobs and accepts submits", pauseStopsClaims},
		{"a pause lasts until it is ended, also across a reopening", pauseLasts},
		{"jobs of a paused queue still end, become due and expire", pauseAllowsEnds},
		{"waiting jobs count their bytes, running jobs do not", pauseCountsBytes},
	}
}

func newPause(q string, on bool) *store.Pause { return &store.Pause{Queue: q, Paused: on} }

func pauseStopsClaims(w *harness) {
	w.submitMany(2)
	c := w.claimOne(queue)
	b := w.do(newPause(queue, true), newRenew(c.Lease(), leaseFor), w.newClaim(queue, 1))
	wantEqual(w, "the counts answered", b.Counts[queue], job.Counts{Queued: 1, Running: 1, Paused: true})
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 1, Running: 1, Paused: true})
	s := w.newSubmit(leasedAs(w.token()))
	w.do(s)
	wantEqual(w, "the state of a submit with a token", s.Job.State, job.Queued)
	w.submit()
	wantEqual(w, "the jobs claimed of a paused queue", len(w.claim(queue, 5)), 0)
	wantEqual(w, "the jobs of another queue", w.claimOne(w.job(w.submit(inQueue("other"))).Queue).Job.Queue, "other")
	claim := w.newClaim(queue, 5)
	w.do(newPause(queue, false), claim)
	wantEqual(w, "the jobs claimed by the batch that ends the pause", len(claim.Claimed), 3)
}

func pauseLasts(w *harness) {
	w.do(newPause("new", true))
	w.do(newPause(queue, true), newPause("twice", true))
	w.do(newPause("twice", false))
	for range 2 {
		wantEqual(w, "the pause of a queue without jobs", w.counts("new"), job.Counts{Paused: true})
		wantEqual(w, "the pause of a queue", w.counts(queue).Paused, true)
		wantEqual(w, "the pause that was ended", w.counts("twice").Paused, false)
		w.reopen()
		w.do(newPause(queue, true))
	}
	w.submit()
	wantEqual(w, "the jobs claimed", len(w.claim(queue, 1)), 0)
}

func pauseAllowsEnds(w *harness) {
	c := w.running()
	late, expiring := w.submit(delayed(time.Minute)), w.submit(withQueueTimeout(time.Minute))
	w.do(newPause(queue, true))
	w.do(newAppend(c.Lease(), 1, 0, "text"), newFinish(c.Lease(), job.Succeeded))
	w.advance(2 * time.Minute)
	w.do(newDue())
	w.wantStates("while paused", job.Succeeded, c.Job.ID)
	w.wantStates("while paused", job.Queued, late)
	w.wantStates("while paused", job.Expired, expiring)
	w.do(newCancel(late))
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Succeeded: 1, Expired: 1, Cancelled: 1, Paused: true})
}

// withInputBytes sets the bytes that the job counts in its queue.
func withInputBytes(n int64) func(*store.Submit) {
	return func(s *store.Submit) { s.Job.InputBytes = n }
}

func pauseCountsBytes(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 2})
	wantBytes := func(when string, want int64) {
		w.Helper()
		wantEqual(w, fmt.Sprintf("what waits after %s", when), w.counts(queue).WaitingBytes, want)
	}
	first, second, parked := w.submit(withInputBytes(1)), w.submit(withInputBytes(20)), w.submit(withInputBytes(300))
	w.submit(withInputBytes(4000), delayed(time.Minute))
	w.submit(withInputBytes(50000), leasedAs(w.token()), withKey("runs"))
	wantBytes("the submits", 4321)
	wantEqual(w, "the weight of a job", w.job(parked).InputBytes, 300)
	c := w.claimOne(queue)
	wantEqual(w, "the claimed job", c.Job.ID, first)
	wantBytes("a claim", 4320)
	w.do(newFinish(c.Lease(), job.Scheduled))
	wantBytes("a failed attempt", 4321)
	w.do(newCancel(second), newDelete(parked))
	wantBytes("a cancel and a delete", 4001)
	w.reopen()
	wantBytes("an opening", 4001)
	w.do(newRetry(second))
	wantBytes("a retry", 4021)
	w.advance(2 * time.Minute)
	w.do(newDue())
	wantBytes("a due", 4021)
	wantEqual(w, "the jobs claimed", len(w.claim(queue, 9)), 2)
	wantBytes("claims that left the parked one", 4000)
}
