package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func racedLeaseRules() []rule {
	return []rule{
		{"of a renewal and a sweep of one lapsed lease exactly one applies", racedRenewal},
		{"of two sweeps of one lapsed lease one applies", racedSweeps},
		{"of two finishes of one lease one applies, and its answer equals the stored job", racedFinishes},
		{"a lease that one store ended changes nothing at any store", staleEverywhere},
		{"a lease is renewed, written under and finished at any store", leaseAnywhere},
		{"entries that are appended at several stores are stored once", racedAppends},
		{"an append concurrent with the finish of its job applies whole or not at all", racedAppendFinish},
	}
}

// endAllUnfinished ends all queued and running jobs, so that the next round starts without any.
func (w *harness) endAllUnfinished() {
	w.Helper()
	var ops []any
	for _, r := range w.listRunning(store.AllRunning) {
		ops = append(ops, newFinish(job.Lease{Job: r.Job.ID, Token: r.Token}, job.Succeeded))
	}
	for _, j := range w.listAll(job.Filter{Owner: mine, Queue: queue}) {
		if j.State.Waiting() {
			ops = append(ops, newCancel(j.ID))
		}
	}
	w.do(ops...)
}

func racedRenewal(w *harness) {
	for round := range rounds {
		c := w.running()
		w.advance(leaseFor + time.Second)
		renew, lapse := newRenew(c.Lease(), 0), newLapse(c.Lease(), job.Queued)
		w.race(round, renew, lapse)
		wantEqual(w, "whether one of the two applied", (renew.Err == nil) != (lapse.Err == nil), true)
		w.eachStore(func() {
			wantEqual(w, "whether the lease is current", w.lease(c.Lease()).Token == c.Token, renew.Err == nil)
			wantEqual(w, "the lapsed leases", len(w.listRunning(store.LapsedOnly)), 0)
		})
		if renew.Err != nil {
			w.wantCode(job.LeaseLost, renew.Err)
		} else {
			w.wantCode(job.LeaseLost, lapse.Err)
		}
		w.endAllUnfinished()
	}
}

func racedSweeps(w *harness) {
	for round := range rounds {
		c := w.running()
		w.advance(leaseFor + time.Second)
		a, b := newLoss(c.Lease()), newLoss(c.Lease())
		a.OnlyIf, b.OnlyIf = store.LapsedOnly, store.LapsedOnly
		w.race(round, a, b)
		won := wantOneApplied(w, job.LeaseLost, a, b)
		j := w.job(c.Job.ID)
		wantEqual(w, "the job", text(j), text(*won.Job))
		wantEqual(w, "its losses", j.Losses, 1)
		wantEqual(w, "its state", j.State, job.Scheduled)
		w.endAllUnfinished()
	}
}

func racedFinishes(w *harness) {
	for round := range rounds {
		c := w.running()
		a, b := newFinish(c.Lease(), job.Succeeded), newFinish(c.Lease(), job.Failed)
		a.Entries, b.Entries = textEntries(1, 0, "a"), textEntries(1, 0, "b")
		w.race(round, a, b)
		won := wantOneApplied(w, job.LeaseLost, a, b)
		w.eachStore(func() {
			wantEqual(w, "the job", text(w.job(c.Job.ID)), text(*won.Job))
			wantEqual(w, "its text", w.textOf(c.Job.ID), string(won.Entries[0].Data))
			_, err := w.result(mine, c.Job.ID)
			wantEqual(w, "whether it has a result", err == nil, won == a)
		})
	}
}

func staleEverywhere(w *harness) {
	old := w.running()
	w.advance(leaseFor + time.Second)
	w.use(1)
	w.do(newLapse(old.Lease(), job.Queued))
	stale := func() {
		l := old.Lease()
		f := newFinish(l, job.Succeeded)
		f.Entries, f.Progress = textEntries(1, 0, "late"), &job.Progress{Percent: 5}
		w.mustRefuse(job.LeaseLost, newRenew(l, 0), newAppend(l, 1, 0, "late"), f, newLapse(l, job.Failed),
			newFinish(l, job.Queued), newFinish(l, job.Scheduled), newLoss(l))
		wantEqual(w, "the job of an old lease", w.lease(l).Token, job.Token{})
	}
	w.eachStore(stale)
	w.use(1)
	w.claimOne(queue)
	w.eachStore(stale)
	w.advance(leaseFor + time.Second)
	w.eachStore(stale)
	w.endAllUnfinished()
	w.eachStore(stale)
}

func leaseAnywhere(w *harness) {
	for n := range w.stores {
		w.use(n)
		c := w.running()
		w.eachStore(func() { w.do(newRenew(c.Lease(), 0)) })
		cursor := int64(0)
		w.eachStore(func() {
			w.do(newAppend(c.Lease(), 1, cursor, "a"))
			cursor++
		})
		w.advance(leaseFor - time.Second)
		w.use((n + 1) % len(w.stores))
		w.mustRefuse(job.LeaseLost, newLapse(c.Lease(), job.Failed))
		w.do(newFinish(c.Lease(), job.Succeeded))
		w.use(0)
		wantEqual(w, "its text", int64(len(w.textOf(c.Job.ID))), cursor)
	}
}

func racedAppends(w *harness) {
	for round := range rounds {
		c := w.running()
		a, b := newAppend(c.Lease(), 1, 0, "x", "y"), newAppend(c.Lease(), 1, 0, "x", "y")
		w.race(round, a, b)
		wantEqual(w, "the answer to one", a.Err, nil)
		wantEqual(w, "the answer to the other", b.Err, nil)
		first, next := newAppend(c.Lease(), 1, 2, "a"), newAppend(c.Lease(), 1, 3, "b")
		w.race(round, first, next)
		wantEqual(w, "the answer to the next entry", first.Err, nil)
		want := "xyab"
		if next.Err != nil { // it was committed before the append that it continues
			w.wantCode(job.Conflict, next.Err)
			want = "xya"
		}
		w.eachStore(func() {
			wantEqual(w, "the text of the job", w.textOf(c.Job.ID), want)
			wantEqual(w, "the cursor", w.job(c.Job.ID).Cursor, int64(len(want)))
		})
		w.endAllUnfinished()
	}
}

func racedAppendFinish(w *harness) {
	for round := range 2 * rounds {
		c := w.running()
		output, f := newAppend(c.Lease(), 1, 0, "a"), newFinish(c.Lease(), job.Succeeded)
		if round < rounds {
			f.Entries = textEntries(1, 0, "a", "b")
		}
		w.race(round%rounds, output, f)
		want := ""
		switch {
		case f.Err != nil: // its entries do not follow what was appended meanwhile
			w.wantCode(job.Conflict, f.Err)
			wantEqual(w, "the answer to the append", output.Err, nil)
			want = "a"
		case len(f.Entries) > 0:
			want = "ab"
		case output.Err == nil:
			want = "a"
		}
		if output.Err != nil {
			w.wantCode(job.LeaseLost, output.Err)
		}
		wantEqual(w, "the text of the job", w.textOf(c.Job.ID), want)
		w.endAllUnfinished()
	}
}
