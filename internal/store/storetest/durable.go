package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func durableRules() []rule {
	return []rule{
		{"a reopened store has everything that was committed", durableAll},
		{"leases survive a reopening", durableLeases},
		{"output continues after a reopening", durableOutput},
		{"many openings and closings change nothing", long(durableOften)},
		{"a second Close changes nothing", closedTwice},
	}
}

// fillAllStates fills a store with jobs in every state, and their output, rows and keys.
func (w *harness) fillAllStates() {
	for _, state := range reachable() {
		for range 3 {
			w.inState(state)
		}
	}
	c := w.running(withRef("put:p"), withIdempotency("k", "a"), withInput("\x00\xff"))
	output := newAppend(c.Lease(), 1, 0, "one", "two")
	output.Progress = &job.Progress{Percent: 33.25, Status: "A third"}
	w.do(output, newCancel(c.Job.ID))
	done := w.running(withRef("put:q"))
	f := newFinish(done.Lease(), job.Succeeded)
	f.Usage, f.Entries = []byte(`{"tokens":3}`), textEntries(1, 0, "the end")
	w.do(f, newWrite(put("p", "a", "row"), put("p", "b", "")))
	w.submit(ownedBy(theirs), delayed(time.Minute))
	w.submit(ownedBy(elsewhere), withQueueTimeout(time.Minute), withIdempotency("k", "b"))
	w.newMixedQueue()
}

func durableAll(w *harness) {
	w.fillAllStates()
	before := w.stored()
	w.reopen()
	w.sameStored("opening the store again changed it", before, w.stored())
}

func durableLeases(w *harness) {
	a, b, stale := w.running(), w.running(), w.running()
	leased := w.newSubmit(leasedAs(w.token()))
	w.do(leased, newFinish(stale.Lease(), job.Queued), newRenew(b.Lease(), time.Hour))
	w.reopen()
	wantEqual(w, "the running jobs", len(w.listRunning(store.AllRunning)), 3)
	w.wantLeaseRefused(stale.Lease())
	w.advance(leaseFor + time.Second)
	w.mustRefuse(job.LeaseLost, newLapse(b.Lease(), job.Queued))
	lapsed := w.listRunning(store.LapsedOnly)
	wantEqual(w, "the lapsed leases", len(lapsed), 2)
	w.do(newLapse(a.Lease(), job.Queued))
	w.do(newRenew(job.Lease{Job: leased.Job.ID, Token: leased.Token}, leaseFor), newFinish(b.Lease(), job.Succeeded))
	w.reopen()
	wantEqual(w, "the running jobs", len(w.listRunning(store.AllRunning)), 1)
	w.wantLeaseRefused(a.Lease())
	w.wantLeaseRefused(b.Lease())
}

func durableOutput(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "a", "b"))
	w.reopen()
	wantEqual(w, "the cursor", w.job(c.Job.ID).Cursor, 2)
	w.mustRefuse(job.Conflict, newAppend(c.Lease(), 1, 3, "gap"))
	w.do(newAppend(c.Lease(), 1, 2, "c"))
	w.reopen()
	w.do(newFinish(c.Lease(), job.Queued))
	w.reopen()
	c = w.claimOne(queue)
	w.mustRefuse(job.Conflict, newAppend(c.Lease(), 2, 2, "c"))
	w.do(newAppend(c.Lease(), 2, 3, "d"))
	wantEqual(w, "the output", w.textOf(c.Job.ID), "abcd")
	wantEqual(w, "the output bytes", w.job(c.Job.ID).OutputBytes, 4)
}

func durableOften(w *harness) {
	w.fillAllStates()
	before := w.stored()
	for range 5 {
		w.reopen()
	}
	w.sameStored("opening the store again changed it", before, w.stored())
}

func closedTwice(w *harness) {
	w.submit()
	if err := w.store.Close(); err != nil {
		w.Errorf("close: %v", err)
	}
	if err := w.store.Close(); err != nil {
		w.Errorf("the second close: %v", err)
	}
	w.stores = w.open()
	w.use(0)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 1})
}
