package storetest

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func batchRules() []rule {
	return []rule{
		{"an empty batch commits", batchEmpty},
		{"kinds are applied in the order of the batch's fields", batchKindsInOrder},
		{"an append and the finish of its job apply together", batchAppendAndFinish},
		{"a finish frees the job for a cancel, a delete or a retry of its batch", batchFinishFirst},
		{"a large batch commits whole", long(batchLarge)},
		{"a commit overwrites the answers of an earlier failed commit", staleAnswers},
		{"two batches with the same ops both apply", batchSameOps},
		{"a commit whose context has ended applies whole or not at all", batchOverContext},
		{"reads whose context has ended fail and change nothing", readOverContext},
	}
}

func batchEmpty(w *harness) {
	w.submit()
	before := w.stored()
	w.commit(store.NewBatch())
	w.commit(store.NewBatch())
	w.sameStored("an empty batch changed the store", before, w.stored())
}

func batchKindsInOrder(w *harness) {
	c := w.running()
	w.advance(leaseFor + time.Second)
	late := w.submit(delayed(time.Second))
	w.advance(2 * time.Second)
	renew, lapse := newRenew(c.Lease(), leaseFor), newLapse(c.Lease(), job.Queued)
	cancel, claim := newCancel(c.Job.ID), w.newClaim(queue, 5)
	write := newWrite(put("p", "a", ""))
	s := w.newSubmit(withRows(withAction(store.Require, put("p", "a", ""))))
	w.try(claim, newDue(), s, write, cancel, lapse, renew)
	w.wantCode(job.LeaseLost, lapse.Err) // the renewal applies first
	wantEqual(w, "the submit after the write", s.Err, nil)
	wantEqual(w, "the cancel of what still runs", cancel.Ended, false)
	wantEqual(w, "the jobs claimed", len(claim.Claimed), 2)
	wantEqual(w, "the state of the job that was due", w.job(late).State, job.Running)
}

func batchAppendAndFinish(w *harness) {
	c := w.running()
	f := newFinish(c.Lease(), job.Succeeded)
	f.Entries = textEntries(1, 3, "d")
	w.do(newAppend(c.Lease(), 1, 0, "a", "b"), newAppend(c.Lease(), 1, 2, "c"), f)
	wantEqual(w, "the output", w.textOf(c.Job.ID), "abcd")
}

func batchFinishFirst(w *harness) {
	retried, deleted, cancelled := w.running(), w.running(), w.running()
	retry, del, cancel := newRetry(retried.Job.ID), newDelete(deleted.Job.ID), newCancel(cancelled.Job.ID)
	w.do(
		newFinish(retried.Lease(), job.Failed), newFinish(deleted.Lease(), job.Succeeded), newFinish(cancelled.Lease(), job.Queued),
		retry, del, cancel,
	)
	wantEqual(w, "the state of the retried", w.job(retried.Job.ID).State, job.Queued)
	wantEqual(w, "whether the deleted was running", del.Running, false)
	w.wantGone(mine, deleted.Job.ID)
	wantEqual(w, "whether the cancel ended the job", cancel.Ended, true)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 1, Succeeded: 1, Failed: 1, Cancelled: 1, Retried: 1})
}

func batchSameOps(w *harness) {
	c := w.running()
	first := batchOf(newWrite(put("p", "a", "")), newFinish(c.Lease(), job.Succeeded))
	second := fresh(first)
	w.commit(first)
	w.do(newWrite(withAction(store.Remove, put("p", "a", ""))))
	w.commit(second)
	wantEqual(w, "the rows", len(w.rows("note", "p")), 1)
	w.wantCode(job.LeaseLost, second.Finishes[0].Err)
}

func batchLarge(w *harness) {
	const n = 2000
	w.submitMany(n)
	claimed := w.claim(queue, n)
	wantEqual(w, "the jobs claimed", len(claimed), n)
	ops := make([]any, 0, 2*n)
	for _, c := range claimed {
		ops = append(ops, newAppend(c.Lease(), 1, 0, "text"), newFinish(c.Lease(), job.Succeeded))
	}
	w.do(ops...)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Succeeded: n})
}

func batchOverContext(w *harness) {
	over, cancel := context.WithCancel(w.ctx)
	cancel()
	a, b := w.newSubmit(), w.newSubmit()
	batch := batchOf(a, b)
	w.rememberNames(batch)
	if err := store.Commit(over, w.store, batch); err != nil {
		w.commit(batch)
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 2})
	w.job(a.Job.ID)
	w.job(b.Job.ID)
}

func readOverContext(w *harness) {
	id := w.submit()
	over, cancel := context.WithCancel(w.ctx)
	cancel()
	if j, err := w.store.Job(over, mine, id); err == nil && j.ID != id {
		w.Errorf("a read with an ended context returned another job")
	}
	if page, _, err := w.store.List(over, job.Filter{Owner: mine, Limit: 5}); err == nil && len(page) != 1 {
		w.Errorf("a list with an ended context returned %d jobs without an error", len(page))
	}
	w.job(id)
	w.claimOne(queue)
}
