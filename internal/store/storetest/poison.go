package storetest

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func poisonRules() []rule {
	return []rule{
		{"a submit with bad data does not affect a thousand others", poisonSubmits},
		{"bad data in output, results and failures does not affect other ops", poisonOutput},
		{"progress that is not a number does not affect other ops", poisonProgress},
		{"refused ops of every kind do not affect a thousand others", poisonRefused},
		{"an accepted value is returned unchanged", poisonKept},
	}
}

// halved commits a batch as its owner would: on bad data in halves, until the
// culprits stand alone. It returns how many ops the store could not take.
func (w *harness) halved(ops ...any) (culprits int) {
	w.Helper()
	err := w.commitTo(batchOf(ops...))
	switch {
	case err == nil:
		return 0
	case !errors.Is(err, store.ErrData):
		w.Fatalf("the commit failed: %v", err)
	case len(ops) == 1:
		return 1
	}
	n := len(ops) / 2
	return w.halved(ops[:n]...) + w.halved(ops[n:]...)
}

// nasty are values that a careless store would choke on.
func nasty() []string {
	return []string{
		"", "\x00", "nul\x00inside", "\xff\xfe\x80", "\xed\xa0\x80", "'\"`;--", "%_\\", "\u2028\u202e",
		"🫖", strings.Repeat("long ", 20_000), `{"json":true}`, "null", "NaN",
	}
}

func poisonOf(w *harness) (ops []any) {
	for _, v := range nasty() {
		ops = append(ops,
			w.newSubmit(inQueue("poison"), withInput(v)),
			w.newSubmit(inQueue("poison"), withKey(v)),
			w.newSubmit(inQueue("poison"), ownedBy(job.Owner{Tenant: v, User: v})),
			w.newSubmit(inQueue("poison"), withRef("put:"+v)),
			w.newSubmit(inQueue("poison"), once(v, v)),
			w.newSubmit(inQueue("poison"), func(s *store.Submit) { s.Job.Metadata = map[string]string{v: v} }),
			w.newSubmit(inQueue("poison"), withRows(store.Row{Owner: job.Owner{Tenant: v, User: v}, Kind: v, Parent: v, ID: v, Body: []byte(v)})),
			w.newSubmit(inQueue("poison "+v)),
		)
	}
	return append(ops,
		w.newSubmit(inQueue("poison"), withInput(strings.Repeat("x", 8<<20))),
		w.newSubmit(inQueue("poison"), withPriority(-1<<40)),
		w.newSubmit(inQueue("poison"), delayed(1<<62)),
		w.newSubmit(inQueue("poison"), func(s *store.Submit) { s.Job.MaxAttempts = -1; s.Job.Policy = job.Policy{} }),
		w.newSubmit(inQueue("poison"), func(s *store.Submit) { *s = store.Submit{Job: job.Job{ID: s.Job.ID, Queue: "poison"}} }),
	)
}

// among mixes the bad into a thousand good submits, whose ids it returns.
func (w *harness) among(bad []any) (ops []any, good []job.ID) {
	const n = 1000
	every := n/len(bad) + 1
	for i := range n {
		s := w.newSubmit()
		ops, good = append(ops, s), append(good, s.Job.ID)
		if i%every == 0 {
			ops = append(ops, bad[i/every])
		}
	}
	return ops, good
}

func poisonSubmits(w *harness) {
	ops, good := w.among(poisonOf(w))
	w.halved(ops...)
	for _, id := range good {
		w.job(id)
	}
	equal(w, "the good jobs", w.counts(queue).Queued, int64(len(good)))
	equal(w, "the good jobs claimed", len(w.claim(queue, len(good)+1)), len(good))
	for _, op := range ops {
		s := op.(*store.Submit)
		_, err := w.store.Job(w.ctx, s.Job.Owner, s.Job.ID)
		if stored := err == nil; stored != (s.Err == nil && s.Existing == nil) {
			w.Errorf("a submit answered %v and its job reads %v", s.Err, err)
		}
	}
}

func poisonOutput(w *harness) {
	for _, v := range nasty() {
		bad, good := w.running(), w.running()
		say := newAppend(bad.Lease(), 1, 0, v, v)
		say.Progress = &job.Progress{Percent: 1e300, Status: v}
		f := newFinish(bad.Lease(), job.Succeeded)
		f.Result = &job.Result{ContentType: v, Body: []byte(v)}
		f.Failure = &job.Failure{Code: v, Message: v}
		f.Usage = []byte(v)
		w.halved(
			newAppend(good.Lease(), 1, 0, "good"), say, newRenew(good.Lease(), leaseFor),
			newFinish(good.Lease(), job.Succeeded), f, newWrite(store.Row{Owner: job.Owner{Tenant: v, User: v}, Kind: v, Parent: v, ID: v, Body: []byte(v)}),
		)
		equal(w, "the state of the neighbour", w.job(good.Job.ID).State, job.Succeeded)
		equal(w, "the output of the neighbour", w.said(good.Job.ID), "good")
		w.try(newFinish(bad.Lease(), job.Failed)) // if the finish was not taken
		if !w.job(bad.Job.ID).State.Ended() {
			w.Errorf("a job that said %q cannot be ended", v)
		}
	}
}

func poisonProgress(w *harness) {
	for _, percent := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 1e308} {
		bad, good := w.running(), w.running()
		say, f := newAppend(bad.Lease(), 1, 0, "a"), newFinish(bad.Lease(), job.Failed)
		say.Progress, f.Progress = &job.Progress{Percent: percent}, &job.Progress{Percent: percent}
		fine := newAppend(good.Lease(), 1, 0, "good")
		w.halved(say, fine, f)
		equal(w, "the output of the neighbour", w.said(good.Job.ID), "good")
		w.try(newFinish(bad.Lease(), job.Failed)) // if the finish was not taken
		equal(w, "the state", w.job(bad.Job.ID).State, job.Failed)
		w.do(newFinish(good.Lease(), job.Succeeded))
	}
}

func poisonRefused(w *harness) {
	running, succeeded := w.running(), w.running()
	w.do(newFinish(succeeded.Lease(), job.Succeeded))
	w.do(newWrite(put("p", "there", "")))
	lost := job.Lease{Job: running.Job.ID, Token: w.token()}
	bad := []any{
		newRenew(lost, leaseFor), newAppend(lost, 1, 0, "x"), newAppend(running.Lease(), 1, 7, "gap"),
		newFinish(lost, job.Succeeded), newLapse(running.Lease(), job.Queued), newFinish(job.Lease{}, job.Failed),
		newCancel(w.id()), newDelete(w.id()), newRetry(w.id()), newRetry(succeeded.Job.ID),
		newWrite(doing(store.Insert, put("p", "there", ""))), newWrite(doing(store.Require, put("p", "absent", ""))),
		w.newSubmit(withRows(doing(store.Insert, put("p", "there", "")))),
	}
	ops, good := w.among(bad)
	w.try(ops...)
	for _, op := range bad {
		if errOf(op) == nil {
			w.Errorf("%T applied and should have been refused", op)
		}
	}
	equal(w, "the good jobs", w.counts(queue), job.Counts{Queued: int64(len(good)), Running: 1, Succeeded: 1})
	equal(w, "the rows", len(w.rows("note", "p")), 1)
	equal(w, "what the running job said", w.said(running.Job.ID), "")
}

func poisonKept(w *harness) {
	for _, v := range nasty() {
		s := w.newSubmit(withKey(v), withInput(v), once(v, v))
		if w.halved(s) > 0 {
			continue
		}
		j := w.job(s.Job.ID)
		equal(w, "the key", j.Key, v)
		input, err := w.store.Input(w.ctx, mine, j.ID)
		if err != nil || !bytes.Equal(input, []byte(v)) {
			w.Errorf("an input of %d bytes was read as %d bytes, %v", len(v), len(input), err)
		}
		listed := w.all(job.Filter{Owner: mine, Key: &v})
		equal(w, "the jobs of the key", len(listed), 1)
		id, _, err := w.store.Idempotent(w.ctx, mine, v)
		if err != nil || id != j.ID {
			w.Errorf("the idempotency key %.20q names %s, %v", v, id, err)
		}
		w.pass(time.Second)
		w.do(newCancel(j.ID))
	}
}
