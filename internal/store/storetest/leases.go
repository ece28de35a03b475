package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func sharedLeaseRules() []rule {
	return []rule{
		{"a renewal extends a lease by its claimed length", renewAsClaimed},
		{"Leases answers everything that another process needs to serve a lease", leasesAnswered},
		{"Leases answers the zero value for a lease that is not current", leasesOfUnknown},
		{"LeaseUsed is true once the lease was renewed or written under, or from the start with InUse", leaseUse},
		{"a finish as unused makes the job wait as if it had not been claimed", leaseUnused},
		{"a repeated claim answers the leases of its tokens", claimAgain},
		{"a repeated submit answers the job of its token", submitAgain},
		{"running jobs are listed by process", runningByProcess},
	}
}

// lease reads one lease.
func (w *harness) lease(l job.Lease) store.Running {
	w.Helper()
	list, err := w.store.Leases(w.ctx, []job.Lease{l})
	if err != nil || len(list) != 1 {
		w.Fatalf("%d answers to one lease, %v", len(list), err)
	}
	return list[0]
}

func renewAsClaimed(w *harness) {
	claim := w.newClaim(queue, 1)
	claim.LeaseFor = 10 * time.Minute
	leased := w.newSubmit(leasedAs(w.token()), inQueue("leased"))
	leased.LeaseFor = 10 * time.Minute
	w.do(w.newSubmit(), leased)
	w.do(claim)
	policy := w.newClaim(queue, 1)
	policy.LeaseFor = 0
	w.do(w.newSubmit(), policy)
	long := []job.Lease{claim.Claimed[0].Lease(), {Job: leased.Job.ID, Token: leased.Token}}
	short := policy.Claimed[0].Lease()
	for _, l := range append(long, short) {
		w.do(newRenew(l, time.Second), newRenew(short, 0))
		w.reopen()
		w.do(newRenew(l, 0))
	}
	w.advance(leaseFor + time.Second)
	wantEqual(w, "the lapsed leases after the policy's time", len(w.listRunning(store.LapsedOnly)), 1)
	w.do(newRenew(short, 0))
	wantEqual(w, "the lapsed leases", len(w.listRunning(store.LapsedOnly)), 0)
	w.advance(10 * time.Minute)
	wantEqual(w, "the lapsed leases after all have passed", len(w.listRunning(store.LapsedOnly)), 3)
}

func leasesAnswered(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "earlier"), newFinish(c.Lease(), job.Queued))
	claim := w.newClaim(queue, 1)
	claim.LeaseFor, claim.Process = time.Minute, job.Process(w.token())
	w.do(claim)
	l := claim.Claimed[0].Lease()
	for _, opened := range []string{"", ", opened again"} {
		r := w.lease(l)
		wantEqual(w, "the job"+opened, text(r.Job), text(w.job(l.Job)))
		wantEqual(w, "the token"+opened, r.Token, l.Token)
		wantEqual(w, "the worker"+opened, r.Worker, "worker")
		wantEqual(w, "the process"+opened, r.Process, claim.Process)
		wantEqual(w, "how long it was claimed for"+opened, r.LeaseFor, time.Minute)
		wantEqual(w, "the earlier output"+opened, r.EarlierOutputBytes, int64(len("earlier")))
		wantEqual(w, "whether it has output"+opened, r.HasOutput, false)
		w.reopen()
	}
	w.do(newAppend(l, 2, 1, "now"))
	r := w.lease(l)
	wantEqual(w, "the earlier output", r.EarlierOutputBytes, int64(len("earlier")))
	wantEqual(w, "the cursor", r.Job.Cursor, 2)
	wantEqual(w, "whether it has output", r.HasOutput, true)
}

func leasesOfUnknown(w *harness) {
	c, waiting := w.running(), w.submit(inQueue("other"))
	list, err := w.store.Leases(w.ctx, []job.Lease{
		{}, {Job: c.Job.ID}, {Job: c.Job.ID, Token: w.token()}, c.Lease(), {Job: waiting}, {Job: waiting, Token: c.Token}, {Job: w.id(), Token: c.Token},
	})
	if err != nil || len(list) != 7 {
		w.Fatalf("%d answers to 7 leases, %v", len(list), err)
	}
	for i, r := range list {
		wantEqual(w, "a lease holds a job", r.Job.ID == c.Job.ID && r.Token == c.Token, i == 3)
	}
	w.do(newFinish(c.Lease(), job.Succeeded))
	wantEqual(w, "the token of a lease that was finished", w.lease(c.Lease()).Token, job.Token{})
}

func leaseUse(w *harness) {
	used := func(l job.Lease) bool {
		w.Helper()
		before := w.lease(l).LeaseUsed
		w.reopen()
		wantEqual(w, "the use after the store was opened again", w.lease(l).LeaseUsed, before)
		return before
	}
	for _, op := range []func(l job.Lease) any{
		func(l job.Lease) any { return newRenew(l, 0) },
		func(l job.Lease) any { return newAppend(l, 1, 0, "a") },
	} {
		l := w.running().Lease()
		wantEqual(w, "a new lease is used", used(l), false)
		w.do(op(l))
		wantEqual(w, "it is used then", used(l), true)
		w.do(newFinish(l, job.Succeeded))
	}
	s := w.newSubmit(leasedAs(w.token()))
	s.InUse = true
	claim := w.newClaim("other", 1)
	claim.InUse = true
	w.do(s, w.newSubmit(inQueue("other")), claim)
	wantEqual(w, "a submit in use is used", used(job.Lease{Job: s.Job.ID, Token: s.Token}), true)
	wantEqual(w, "a claim in use is used", used(claim.Claimed[0].Lease()), true)
}

func leaseUnused(w *harness) {
	w.newSuspect(queue)
	c := w.claimOne(queue)
	f := newFinish(c.Lease(), job.Queued)
	f.Unused, f.OnlyIf = true, store.LapsedOnly
	w.advance(leaseFor + time.Second)
	w.do(f)
	j := w.job(c.Job.ID)
	wantEqual(w, "the attempts", j.Attempt, c.Job.Attempt-1)
	wantEqual(w, "the losses", j.Losses, c.Job.Losses)
	wantEqual(w, "it is a suspect", j.Suspect(), true)
}

func claimAgain(w *harness) {
	w.submitMany(3)
	first := w.newClaim(queue, 2)
	w.do(first)
	again := w.newClaim(queue, 1)
	again.Tokens = append([]job.Token{first.Tokens[1], first.Tokens[0]}, again.Tokens...)
	w.reopen()
	w.do(again)
	if len(again.Claimed) != 3 {
		w.Fatalf("a claim with two tokens that hold jobs and a new one got %d jobs", len(again.Claimed))
	}
	for i, want := range []job.Claimed{first.Claimed[1], first.Claimed[0]} {
		got := again.Claimed[i]
		wantEqual(w, "the job that is answered again", text(got.Job), text(want.Job))
		wantEqual(w, "its token", got.Token, want.Token)
		wantEqual(w, "its input", string(got.Input), string(want.Input))
		w.wantTime("the end of the lease", got.Until, want.Until)
	}
	wantEqual(w, "the new job's token", again.Claimed[2].Token, again.Tokens[2])
	w.do(newFinish(first.Claimed[0].Lease(), job.Queued))
	w.do(first)
	wantEqual(w, "the jobs of a claim after one was released", len(first.Claimed), 2)
	wantEqual(w, "the running jobs", len(w.listRunning(store.AllRunning)), 3)
}

func submitAgain(w *harness) {
	s := w.newSubmit(leasedAs(w.token()))
	w.do(s)
	again, other := freshOp(s).(*store.Submit), w.newSubmit(leasedAs(s.Token))
	w.reopen()
	w.do(again)
	wantEqual(w, "the job", text(again.Job), text(s.Job))
	w.mustRefuse(job.Conflict, other)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Running: 1})
}

func runningByProcess(w *harness) {
	one, two := job.Process(w.token()), job.Process(w.token())
	w.submitMany(5)
	leased := w.newSubmit(leasedAs(w.token()), inQueue("other"))
	a, b, c := w.newClaim(queue, 2), w.newClaim(queue, 1), w.newClaim(queue, 1)
	a.Process, b.Process, leased.Process = one, two, one
	w.do(a, b, c, leased)
	for _, opened := range []string{"", ", opened again"} {
		for p, want := range map[job.Process]int{one: 3, two: 1, {}: 1} {
			var after job.ID
			n := 0
			for {
				page, err := w.store.RunningOf(w.ctx, p, after, 2)
				if err != nil {
					w.Fatalf("the running jobs of a process: %v", err)
				}
				if len(page) == 0 {
					break
				}
				n, after = n+len(page), page[len(page)-1].Job.ID
			}
			wantEqual(w, "the running jobs of a process"+opened, n, want)
		}
		w.reopen()
	}
}
