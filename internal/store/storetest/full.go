package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func fullRules() []rule {
	return []rule{
		{"a submit above its key's limit of waiting jobs is refused", fullRefuses},
		{"a job that is stored already leased does not wait", fullLeased},
		{"a known idempotency key is answered also when its key is full", fullIdempotent},
		{"a full key accepts a submit once one of its jobs ran, ended or was deleted", fullAgain},
		{"a retry is never refused because of its key's limit", fullRetry},
	}
}

func fullRefuses(w *harness) {
	w.setLimits(queue, job.Limits{KeyWaiting: 3, KeyRunning: 1})
	w.submit(delayed(time.Hour))
	w.submitMany(2) // one is parked
	for _, edit := range []func(*store.Submit){delayed(0), delayed(time.Minute), leasedAs(w.token()), withIdempotency("k", "a")} {
		s := w.newSubmit(edit)
		w.mustRefuse(job.KeyFull, s)
		w.wantGone(mine, s.Job.ID)
	}
	w.submit(withKey("other"))
	w.submit(inQueue("other"))
	w.reopen()
	w.mustRefuse(job.KeyFull, w.newSubmit())
	ops := []*store.Submit{w.newSubmit(withKey("new")), w.newSubmit(withKey("new")), w.newSubmit(withKey("new")), w.newSubmit(withKey("new"))}
	w.try(ops[0], ops[1], ops[2], ops[3])
	wantEqual(w, "the refusal of the third", ops[2].Err, nil)
	w.wantCode(job.KeyFull, ops[3].Err)
}

func fullLeased(w *harness) {
	w.setLimits(queue, job.Limits{KeyWaiting: 1})
	for range 5 {
		w.submit(leasedAs(w.token()))
	}
	w.submit()
	w.mustRefuse(job.KeyFull, w.newSubmit())
	w.submit(leasedAs(w.token()))
	w.do(&store.Pause{Queue: queue, Paused: true})
	w.mustRefuse(job.KeyFull, w.newSubmit(leasedAs(w.token())))
}

func fullIdempotent(w *harness) {
	w.setLimits(queue, job.Limits{KeyWaiting: 1})
	id := w.submit(withIdempotency("k", "a"))
	s := w.newSubmit(withIdempotency("k", "a"))
	w.do(s)
	if s.Existing == nil || s.Existing.ID != id {
		w.Errorf("a known key is not answered")
	}
	w.mustRefuse(job.IdempotencyMismatch, w.newSubmit(withIdempotency("k", "b")))
	w.mustRefuse(job.KeyFull, w.newSubmit(withIdempotency("l", "a")))
}

func fullAgain(w *harness) {
	w.setLimits(queue, job.Limits{KeyWaiting: 1})
	full := func(when string) job.ID {
		w.Helper()
		s := w.newSubmit(withQueueTimeout(time.Minute))
		w.try(s)
		if s.Err != nil {
			w.Fatalf("after %s: %v", when, s.Err)
		}
		w.mustRefuse(job.KeyFull, w.newSubmit())
		return s.Job.ID
	}
	full("nothing")
	c := w.claimOne(queue)
	id := full("a claim")
	w.do(newCancel(id))
	id = full("a cancel")
	w.do(newDelete(id))
	full("a delete")
	w.advance(time.Hour)
	w.do(newDue())
	w.do(newCancel(full("an expiry")))
	w.do(newFinish(c.Lease(), job.Scheduled))
	w.mustRefuse(job.KeyFull, w.newSubmit())
}

func fullRetry(w *harness) {
	w.setLimits(queue, job.Limits{KeyWaiting: 1})
	id := w.submit()
	w.do(newCancel(id))
	w.submit()
	w.do(newRetry(id))
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 2, Cancelled: 1, Retried: 1})
}
