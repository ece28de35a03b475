package storetest

import (
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func pipelineRules() []rule {
	return []rule{
		{"batches are applied one after another while none of them is synced", applyBeforeSync},
		{"syncs may be waited for in any order and by several goroutines", syncAnyOrder},
		{"a batch applied again before it was synced is applied once", applyAgainUnsynced},
		{"MaxUnsynced batches apply once when they are applied again", applyAllAgain},
		{"a read does not wait for the sync of the batch that it sees", readBeforeSync},
	}
}

// apply applies ops as one batch without waiting for its sync. Each op must apply.
func (w *harness) apply(ops ...any) (b *store.Batch, synced func() error) {
	w.Helper()
	b = batchOf(ops...)
	w.rememberNames(b)
	synced, err := w.store.Apply(w.ctx, b)
	if err != nil {
		w.Fatalf("the apply failed: %v", err)
	}
	for _, op := range ops {
		if err := errOf(op); err != nil {
			w.Fatalf("%T was refused: %v", op, err)
		}
	}
	return b, synced
}

func (w *harness) wait(synced func() error) {
	w.Helper()
	if err := synced(); err != nil {
		w.Errorf("the sync failed: %v", err)
	}
}

func applyBeforeSync(w *harness) {
	for range 20 {
		s, claim := w.newSubmit(), w.newClaim(queue, 1)
		w.apply(s)
		w.apply(claim)
		if len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != s.Job.ID {
			w.Fatalf("a claim did not get the job of the batch before")
		}
		w.apply(newAppend(claim.Claimed[0].Lease(), 1, 0, "text"))
		_, last := w.apply(newFinish(claim.Claimed[0].Lease(), job.Succeeded))
		w.wait(last)
	}
	before := w.stored()
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Succeeded: 20})
	w.reopen()
	w.sameStored("what was applied before the last sync is not there any more", before, w.stored())
}

func syncAnyOrder(w *harness) {
	const rounds = 10
	for range rounds {
		var syncs [store.MaxUnsynced]func() error
		for i := range syncs {
			_, syncs[i] = w.apply(w.newSubmit())
		}
		var waiting sync.WaitGroup
		for i := range syncs {
			waiting.Go(func() { w.wait(syncs[len(syncs)-1-i]) })
		}
		waiting.Wait()
		for _, synced := range syncs {
			w.wait(synced) // a second call returns at once
		}
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: rounds * store.MaxUnsynced})
}

func applyAgainUnsynced(w *harness) {
	b, first := w.apply(w.newSubmit(), w.newClaim(queue, 1))
	answers := w.answers(b)
	second, err := w.store.Apply(w.ctx, b)
	if err != nil {
		w.Fatalf("the second apply failed: %v", err)
	}
	w.wait(second)
	w.wait(first)
	w.sameStored("an op applied again answers otherwise", answers, w.answers(b))
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Running: 1})
}

// Each batch depends on the one before, and one of them is refused.
func applyAllAgain(w *harness) {
	c, s := w.running(), w.newSubmit()
	all := []*store.Batch{
		batchOf(newAppend(c.Lease(), 1, 0, "text")),
		batchOf(newFinish(c.Lease(), job.Queued), w.newClaim(queue, 1)),
		batchOf(s, newRenew(c.Lease(), leaseFor)),
		batchOf(newCancel(s.Job.ID)),
		batchOf(newRetry(s.Job.ID)),
		batchOf(w.newClaim(queue, 1)),
		batchOf(newWrite(withAction(store.Insert, put("p", "a", "x")))),
	}
	for len(all) < store.MaxUnsynced {
		all = append(all, batchOf(w.newSubmit(withIdempotency("k", "a"))))
	}
	again := func() {
		w.Helper()
		var last func() error
		for _, b := range all {
			w.rememberNames(b)
			synced, err := w.store.Apply(w.ctx, b)
			if err != nil {
				w.Fatalf("the apply failed: %v", err)
			}
			last = synced
		}
		w.wait(last)
	}
	again()
	after := w.stored()
	var answers []stored
	for _, b := range all {
		answers = append(answers, w.answers(b))
	}
	for _, when := range []string{"at once", "after an opening"} {
		again()
		w.sameStored("batches applied again "+when+" left another store", after, w.stored())
		for i, b := range all {
			w.sameStored("an op of a batch applied again "+when+" answers otherwise", answers[i], w.answers(b))
		}
		w.reopen()
	}
}

func readBeforeSync(w *harness) {
	s := w.newSubmit()
	_, synced := w.apply(s)
	if j, err := w.store.Job(w.ctx, mine, s.Job.ID); err == nil {
		wantEqual(w, "the job as read", text(j), text(s.Job))
	} else {
		w.wantCode(job.NotFound, err) // it is not on disk yet
	}
	w.wait(synced)
	wantEqual(w, "the job as read", text(w.job(s.Job.ID)), text(s.Job))
}
