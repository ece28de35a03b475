package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func countRules() []rule {
	return []rule{
		{"the kept counts follow a job through its life", countsThroughLife},
		{"a commit answers the counts of every queue it changed", countsAnswered},
		{"a commit answers the counts of every queue that it names, also when it changed nothing", countsNamed},
		{"a refused op changes no counts", countsOfRefused},
		{"counts of many queues are kept apart", countsApart},
		{"a queue keeps its totals when its jobs are deleted", countsOutlive},
	}
}

func countsThroughLife(w *harness) {
	step := func(want job.Counts, op any) {
		w.Helper()
		b := w.do(op)
		wantEqual(w, fmt.Sprintf("the counts after %T", op), w.counts(queue), want)
		wantEqual(w, fmt.Sprintf("the counts answered by %T", op), b.Counts[queue], want)
	}
	s := w.newSubmit(delayed(time.Minute))
	step(job.Counts{Scheduled: 1}, s)
	w.advance(2 * time.Minute)
	step(job.Counts{Queued: 1}, newDue())
	claim := w.newClaim(queue, 1)
	step(job.Counts{Running: 1}, claim)
	step(job.Counts{Scheduled: 1}, newFinish(claim.Claimed[0].Lease(), job.Scheduled))
	w.advance(time.Minute)
	step(job.Counts{Queued: 1}, newDue())
	claim = w.newClaim(queue, 1)
	step(job.Counts{Running: 1}, claim)
	step(job.Counts{Failed: 1}, newFinish(claim.Claimed[0].Lease(), job.Failed))
	step(job.Counts{Queued: 1, Failed: 1, Retried: 1}, newRetry(s.Job.ID))
	step(job.Counts{Failed: 1, Retried: 1, Cancelled: 1}, newCancel(s.Job.ID))
	step(job.Counts{Queued: 1, Failed: 1, Retried: 2, Cancelled: 1}, newRetry(s.Job.ID))
	claim = w.newClaim(queue, 1)
	w.do(claim)
	step(job.Counts{Succeeded: 1, Failed: 1, Retried: 2, Cancelled: 1}, newFinish(claim.Claimed[0].Lease(), job.Succeeded))
}

func countsAnswered(w *harness) {
	a, b := w.newSubmit(inQueue("a")), w.newSubmit(inQueue("b"))
	first := w.do(a, b)
	wantEqual(w, "the queues answered", len(first.Counts), 2)
	second := w.do(w.newClaim("a", 1), newCancel(b.Job.ID), w.newSubmit(inQueue("c"), leasedAs(w.token())))
	for q, want := range map[string]job.Counts{"a": {Running: 1}, "b": {Cancelled: 1}, "c": {Running: 1}} {
		wantEqual(w, "the counts of "+q+" as answered", second.Counts[q], want)
		wantEqual(w, "the counts of "+q+" as read", w.counts(q), want)
	}
}

func countsNamed(w *harness) {
	w.setLimits("full", job.Limits{KeyWaiting: 1})
	w.submit(inQueue("full"), withIdempotency("known", "a"))
	c := w.running(inQueue("runs"))
	stale := job.Lease{Job: c.Job.ID, Token: w.token()}
	for name, b := range map[string]*store.Batch{
		"empty":  w.do(w.newClaim("empty", 2)),
		"full":   w.try(w.newSubmit(inQueue("full"))),
		"runs":   w.try(newFinish(stale, job.Succeeded)),
		"paused": w.do(newPause("paused", false)),
	} {
		if got, ok := b.Counts[name]; !ok || got != w.counts(name) {
			w.Errorf("a batch that names the queue %s answers %+v, %v", name, b.Counts, ok)
		}
	}
	group := grouped(w.newSubmit(inQueue("full")), w.newSubmit(inQueue("other")))
	b := w.try(append(group, w.newSubmit(inQueue("full"), withIdempotency("known", "a")), w.newClaim("runs", 1))...)
	for _, q := range []string{"full", "other", "runs"} {
		if got, ok := b.Counts[q]; !ok || got != w.counts(q) {
			w.Errorf("a batch that names the queue %s answers %+v, %v", q, b.Counts, ok)
		}
	}
}

func countsOfRefused(w *harness) {
	c := w.running()
	before := w.counts(queue)
	b := w.try(
		newFinish(job.Lease{Job: c.Job.ID, Token: w.token()}, job.Succeeded), newRetry(c.Job.ID), newCancel(w.id()),
		newDelete(w.id()), w.newSubmit(withRows(withAction(store.Require, put("p", "absent", "")))), w.newClaim(queue, 3),
	)
	wantEqual(w, "the counts", w.counts(queue), before)
	if answered, ok := b.Counts[queue]; ok {
		wantEqual(w, "the counts as answered", answered, before)
	}
}

func countsApart(w *harness) {
	for i := range 12 {
		w.submitMany(i+1, inQueue(fmt.Sprint("q", i)))
		w.claim(fmt.Sprint("q", i), i/2)
	}
	for i := range int64(12) {
		wantEqual(w, "the counts", w.counts(fmt.Sprint("q", i)), job.Counts{Queued: i + 1 - i/2, Running: i / 2})
	}
}

func countsOutlive(w *harness) {
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled} {
		f := newFinish(w.running().Lease(), to)
		w.do(f)
		w.do(newDelete(f.Lease.Job))
	}
	w.reopen()
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Succeeded: 1, Failed: 1, Cancelled: 1})
}
