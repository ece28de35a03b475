package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func claimRules() []rule {
	return []rule{
		{"a claim hands over the job, its input and a lease", claimHandsOver},
		{"a claim gets as many jobs as it has tokens, or as are ready", claimAsMany},
		{"a claim without a lease length leases each job for the length in its policy", claimForPolicy},
		{"a claim gets jobs of its own queue only", claimOwnQueue},
		{"a claim gets no job that waits for its time, runs or has ended", claimReadyOnly},
		{"two claims never get the same job", claimsDiffer},
		{"a claim gets jobs that its own batch made ready", claimSeesItsBatch},
		{"a claim does not get jobs that its own batch ended", claimSeesEnds},
		{"each claim counts an attempt, and the first one sets the start time", claimCounts},
		{"a new attempt begins without progress", claimClearsProgress},
		{"a claim of an unknown queue gets nothing", claimUnknownQueue},
	}
}

func claimHandsOver(w *harness) {
	s := w.newSubmit(withInput("the input"))
	w.do(s)
	w.advance(time.Minute)
	op := w.newClaim(queue, 1)
	op.LeaseFor = 42 * time.Second
	w.do(op)
	if len(op.Claimed) != 1 {
		w.Fatalf("claimed %d jobs", len(op.Claimed))
	}
	c := op.Claimed[0]
	wantEqual(w, "the job", c.Job.ID, s.Job.ID)
	wantEqual(w, "the token", c.Token, op.Tokens[0])
	wantEqual(w, "the input", string(c.Input), "the input")
	wantEqual(w, "the state", c.Job.State, job.Running)
	wantEqual(w, "the attempt", c.Job.Attempt, 1)
	w.wantTime("Until", c.Until, w.now().Add(42*time.Second))
	w.wantTime("StartedAt", c.Job.StartedAt, w.now())
	wantEqual(w, "the job as handed over", text(c.Job), text(w.job(c.Job.ID)))
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Running: 1})
}

func claimForPolicy(w *harness) {
	lasts := func(d time.Duration) func(*store.Submit) {
		return func(s *store.Submit) { s.Job.Policy.Timeouts.Lease = d }
	}
	w.do(w.newSubmit(lasts(time.Minute)), w.newSubmit(lasts(time.Second)))
	op := w.newClaim(queue, 2)
	op.LeaseFor = 0
	w.do(op)
	for _, c := range op.Claimed {
		w.wantTime("Until", c.Until, w.now().Add(c.Job.Policy.Timeouts.Lease))
	}
	w.advance(2 * time.Second)
	wantEqual(w, "the lapsed leases", len(w.listRunning(store.LapsedOnly)), 1)
}

func claimAsMany(w *harness) {
	w.submitMany(5)
	wantEqual(w, "the jobs claimed with 3 tokens", len(w.claim(queue, 3)), 3)
	wantEqual(w, "the jobs claimed with none", len(w.claim(queue, 0)), 0)
	wantEqual(w, "the jobs claimed with 9 tokens", len(w.claim(queue, 9)), 2)
	wantEqual(w, "the jobs claimed of an empty queue", len(w.claim(queue, 9)), 0)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Running: 5})
}

func claimOwnQueue(w *harness) {
	a, b := w.submit(inQueue("a")), w.submit(inQueue("a b"))
	wantEqual(w, "the jobs of another queue", len(w.claim("b", 5)), 0)
	wantEqual(w, "the job of the second queue", w.claimOne("a b").Job.ID, b)
	wantEqual(w, "the job of the first queue", w.claimOne("a").Job.ID, a)
}

func claimReadyOnly(w *harness) {
	w.submit(delayed(time.Minute))
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled} {
		w.do(newFinish(w.running().Lease(), to))
	}
	w.running()
	w.do(newCancel(w.submit()))
	w.do(newDelete(w.submit()))
	wantEqual(w, "the jobs claimed", len(w.claim(queue, 10)), 0)
}

func claimsDiffer(w *harness) {
	const jobs = 300
	for i := range jobs {
		w.submit(withKey(string(rune('a' + i%3))))
	}
	claimed := map[job.ID]bool{}
	for len(claimed) < jobs {
		a, b, c := w.newClaim(queue, 7), w.newClaim(queue, 1), w.newClaim(queue, 4)
		w.do(a, b, c)
		got := append(append(a.Claimed, b.Claimed...), c.Claimed...)
		if len(got) == 0 {
			w.Fatalf("only %d of %d jobs could be claimed", len(claimed), jobs)
		}
		for _, c := range got {
			if claimed[c.Job.ID] {
				w.Fatalf("a job was claimed twice")
			}
			claimed[c.Job.ID] = true
			w.do(newRenew(c.Lease(), leaseFor))
		}
	}
}

func claimSeesItsBatch(w *harness) {
	back := w.running()
	failed := w.running()
	w.do(newFinish(failed.Lease(), job.Failed))
	w.submit(delayed(time.Minute))
	w.advance(2 * time.Minute)

	c := w.newClaim(queue, 10)
	w.do(newFinish(back.Lease(), job.Queued), newRetry(failed.Job.ID), w.newSubmit(), newDue(), c)
	wantEqual(w, "the jobs claimed", len(c.Claimed), 4)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Running: 4, Failed: 1, Retried: 1})
}

func claimSeesEnds(w *harness) {
	cancelled, deleted, expired, left := w.submit(), w.submit(), w.submit(withQueueTimeout(time.Second)), w.submit()
	w.advance(2 * time.Second)
	c := w.newClaim(queue, 10)
	w.do(newCancel(cancelled), newDelete(deleted), newDue(), c)
	if len(c.Claimed) != 1 || c.Claimed[0].Job.ID != left {
		w.Errorf("%d more jobs were claimed than the one that was ready", len(c.Claimed))
	}
	wantEqual(w, "the state of the expired one", w.job(expired).State, job.Expired)
}

func claimCounts(w *harness) {
	c := w.running()
	started := w.now()
	for attempt := 2; attempt <= 4; attempt++ {
		w.advance(time.Second)
		w.do(newFinish(c.Lease(), job.Queued))
		w.advance(time.Second)
		c = w.claimOne(queue)
		wantEqual(w, "the attempt", c.Job.Attempt, attempt)
		w.wantTime("StartedAt", c.Job.StartedAt, started)
	}
}

func claimClearsProgress(w *harness) {
	c := w.running()
	output := newAppend(c.Lease(), 1, 0, "half")
	output.Progress = &job.Progress{Percent: 50, Status: "Halfway"}
	w.do(output, newFinish(c.Lease(), job.Queued))
	c = w.claimOne(queue)
	wantEqual(w, "the progress", c.Job.Progress, job.Progress{})
	wantEqual(w, "the stored progress", w.job(c.Job.ID).Progress, job.Progress{})
	wantEqual(w, "the cursor", c.Job.Cursor, 1)
}

func claimUnknownQueue(w *harness) {
	w.submit()
	wantEqual(w, "the jobs claimed", len(w.claim("no such queue", 3)), 0)
	wantEqual(w, "the jobs claimed", len(w.claim("", 3)), 0)
	if _, ok := w.stored()["counts"]; !ok {
		w.Errorf("no counts")
	}
}
