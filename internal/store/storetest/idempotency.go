package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func idempotencyRules() []rule {
	return []rule{
		{"the same key and hash answer the first job and store nothing", sameKeyAgain},
		{"the same key with another hash is refused", sameKeyOtherHash},
		{"a key belongs to its owner", keyOfOtherOwner},
		{"of two submits with one key in one batch the first makes the job", sameKeyInOneBatch},
		{"a key works for delayed and leased submits too", keyOfAnyKind},
		{"a key is found with its job and its hash", keyIsFound},
		{"a key works after a reopening", keyAfterReopen},
		{"a key that outlives its deleted job makes no second job", keyOutlivesDelete},
		{"a key that outlives its pruned job makes no second job", keyOutlivesPrune},
		{"a key is kept as long as its job", keyKeptWithJob},
		{"a prune frees an expired key without a job", keyFreed},
		{"a reused key is kept as long as its new job", keyReused},
		{"a submit refused for its rows leaves its key free", keyOfRefused},
	}
}

// submitAgain repeats a submit and checks that it answers the first job.
func (w *harness) submitAgain(first job.ID, edits ...func(*store.Submit)) {
	w.Helper()
	s := w.newSubmit(append(edits, withInput("another input"), withRows(put("p", "again", "x")))...)
	w.rememberNames(batchOf(s))
	before := w.stored()
	w.do(s)
	if s.Existing == nil {
		w.Fatalf("a known key made a second job")
	}
	wantEqual(w, "the job that the key made", s.Existing.ID, first)
	w.wantGone(s.Job.Owner, s.Job.ID)
	w.sameStored("a submit with a known key changed the store", before, w.stored())
}

func sameKeyAgain(w *harness) {
	first := w.submit(withIdempotency("k", "a"))
	w.submitAgain(first, withIdempotency("k", "a"))
	c := w.claimOne(queue)
	w.submitAgain(first, withIdempotency("k", "a"))
	w.do(newFinish(c.Lease(), job.Succeeded))
	s := w.newSubmit(withIdempotency("k", "a"))
	w.do(s)
	wantEqual(w, "the existing job as answered", text(*s.Existing), text(w.job(first)))
}

func sameKeyOtherHash(w *harness) {
	first := w.submit(withIdempotency("k", "a"))
	s := w.newSubmit(withIdempotency("k", "b"))
	w.mustRefuse(job.IdempotencyMismatch, s)
	w.wantGone(mine, s.Job.ID)
	w.submitAgain(first, withIdempotency("k", "a"))
}

func keyOfOtherOwner(w *harness) {
	made := map[job.ID]bool{}
	owners := []job.Owner{mine, theirs, elsewhere, {User: "tenantuser"}, {Tenant: "tenantuser"}, {}}
	for _, o := range owners {
		made[w.submit(ownedBy(o), withIdempotency("k", "a"))] = true
	}
	wantEqual(w, "the jobs made", len(made), len(owners))
	for _, o := range owners {
		id, _, err := w.store.Idempotent(w.ctx, o, "k")
		if err != nil || !made[id] {
			w.Errorf("the key of %v names %s, %v", o, id, err)
		}
		delete(made, id)
	}
	_, _, err := w.store.Idempotent(w.ctx, job.Owner{Tenant: "nobody"}, "k")
	w.wantCode(job.NotFound, err)
}

func sameKeyInOneBatch(w *harness) {
	first, second := w.newSubmit(withIdempotency("k", "a")), w.newSubmit(withIdempotency("k", "a"))
	third, other := w.newSubmit(withIdempotency("k", "b")), w.newSubmit(withIdempotency("k2", "a"))
	w.try(first, second, third, other)
	if first.Err != nil || first.Existing != nil || other.Err != nil || other.Existing != nil {
		w.Fatalf("the first submits with their keys did not apply: %v, %v", first.Err, other.Err)
	}
	if second.Err != nil || second.Existing == nil || second.Existing.ID != first.Job.ID {
		w.Errorf("the second submit did not answer the first one's job: %v, %v", second.Existing, second.Err)
	}
	w.wantCode(job.IdempotencyMismatch, third.Err)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 2})
}

func keyOfAnyKind(w *harness) {
	late := w.submit(delayed(time.Minute), withIdempotency("late", "a"))
	leased := w.submit(leasedAs(w.token()), withIdempotency("leased", "a"))
	w.submitAgain(late, withIdempotency("late", "a"))
	w.submitAgain(late, leasedAs(w.token()), withIdempotency("late", "a"))
	w.submitAgain(leased, withIdempotency("leased", "a"))
	w.submitAgain(leased, delayed(time.Minute), withIdempotency("leased", "a"))
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Scheduled: 1, Running: 1})
}

func keyIsFound(w *harness) {
	_, _, err := w.store.Idempotent(w.ctx, mine, "k")
	w.wantCode(job.NotFound, err)
	s := w.newSubmit(withIdempotency("k", "a hash of 32 bytes, all of it kept"))
	w.do(s)
	id, hash, err := w.store.Idempotent(w.ctx, mine, "k")
	if err != nil || id != s.Job.ID || hash != s.Idempotency.Hash {
		w.Errorf("the key was found as %s %x, %v", id, hash, err)
	}
}

func keyAfterReopen(w *harness) {
	first := w.submit(withIdempotency("k", "a"))
	w.reopen()
	w.submitAgain(first, withIdempotency("k", "a"))
	w.mustRefuse(job.IdempotencyMismatch, w.newSubmit(withIdempotency("k", "b")))
}

func keyOutlivesDelete(w *harness) {
	first := w.submit(withIdempotency("k", "a"))
	w.do(newDelete(first))
	w.advance(day - time.Hour)
	w.do(newPrune())
	w.mustRefuse(job.NotFound, w.newSubmit(withIdempotency("k", "a")))
	w.mustRefuse(job.IdempotencyMismatch, w.newSubmit(withIdempotency("k", "b")))
	w.reopen()
	w.mustRefuse(job.NotFound, w.newSubmit(withIdempotency("k", "a")))
}

func keyOutlivesPrune(w *harness) {
	c := w.running(withIdempotency("k", "a"))
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.advance(keep + time.Minute)
	w.do(newPrune())
	w.wantGone(mine, c.Job.ID)
	w.mustRefuse(job.NotFound, w.newSubmit(withIdempotency("k", "a")))
}

func keyKeptWithJob(w *harness) {
	waiting := w.submit(withIdempotency("waiting", "a"), withKeep(10*day))
	w.advance(2 * day)
	w.do(newPrune())
	w.submitAgain(waiting, withIdempotency("waiting", "a"))

	f := newFinish(w.claimOne(queue).Lease(), job.Succeeded)
	w.do(f)
	w.advance(9 * day)
	w.do(newPrune())
	w.submitAgain(waiting, withIdempotency("waiting", "a"))
}

func keyFreed(w *harness) {
	pruned := w.running(withIdempotency("pruned", "a"))
	w.do(newFinish(pruned.Lease(), job.Succeeded))
	deleted := w.submit(withIdempotency("deleted", "a"))
	w.do(newDelete(deleted))
	w.advance(day + time.Hour)
	w.do(newPrune())
	w.do(newPrune())
	for _, key := range []string{"pruned", "deleted"} {
		_, _, err := w.store.Idempotent(w.ctx, mine, key)
		w.wantCode(job.NotFound, err)
		s := w.newSubmit(withIdempotency(key, "b"))
		w.do(s)
		if s.Existing != nil {
			w.Errorf("the key %q still answers a removed job", key)
		}
	}
}

func keyReused(w *harness) {
	w.do(newDelete(w.submit(withIdempotency("k", "a"))))
	w.advance(day + time.Minute)
	second := w.submit(withIdempotency("k", "b"))
	w.advance(2 * day)
	w.do(newPrune())
	w.submitAgain(second, withIdempotency("k", "b"))
	w.do(newDelete(second))
	w.do(newPrune())
	w.submit(withIdempotency("k", "c"))
}

func keyOfRefused(w *harness) {
	s := w.newSubmit(withIdempotency("k", "a"), withRows(withAction(store.Require, put("p", "absent", ""))))
	w.mustRefuse(job.NotFound, s)
	_, _, err := w.store.Idempotent(w.ctx, mine, "k")
	w.wantCode(job.NotFound, err)
	w.submit(withIdempotency("k", "b"))
}
