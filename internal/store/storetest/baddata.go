package storetest

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func badDataRules() []rule {
	return []rule{
		{"a submit with bad data does not affect a thousand others", long(badSubmits)},
		{"bad data in output, results and failures does not affect other ops", badOutput},
		{"progress that is not a number does not affect other ops", badProgress},
		{"refused ops of every kind do not affect a thousand others", long(refusedOps)},
		{"an accepted value is returned unchanged", valuesKept},
	}
}

// commitInHalves commits a batch as the engine does: on bad data in halves, until each bad op is
// alone. It returns the bad ops.
func (w *harness) commitInHalves(ops ...any) (culprits []any) {
	w.Helper()
	err := w.commitTo(batchOf(ops...))
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, store.ErrData):
		w.Fatalf("the commit failed: %v", err)
	case len(ops) == 1:
		return ops
	}
	n := len(ops) / 2
	return append(w.commitInHalves(ops[:n]...), w.commitInHalves(ops[n:]...)...)
}

// accepts commits an op that has these names, and reports whether it applied. A store may refuse
// names that are not plain text as bad data.
func (w *harness) accepts(op any, names ...string) bool {
	w.Helper()
	plain := !slices.ContainsFunc(names, func(name string) bool { return !utf8.ValidString(name) || strings.Contains(name, "\x00") })
	culprits := w.commitInHalves(op)
	if len(culprits) > 0 && plain {
		w.Fatalf("%T with the names %q was refused as bad data", op, names)
	}
	if err := errOf(op); err != nil {
		w.Fatalf("%T was refused: %v", op, err)
	}
	return len(culprits) == 0
}

// badValues are strings that a careless store cannot store.
func badValues() []string {
	return []string{
		"", "\x00", "nul\x00inside", "\xff\xfe\x80", "\xed\xa0\x80", "'\"`;--", "%_\\", "\u2028\u202e",
		"🫖", strings.Repeat("long ", 20_000), `{"json":true}`, "null", "NaN",
	}
}

func badOpsOf(w *harness) (ops []any) {
	for _, v := range badValues() {
		ops = append(ops,
			w.newSubmit(inQueue("poison"), withInput(v)),
			w.newSubmit(inQueue("poison"), withKey(v)),
			w.newSubmit(inQueue("poison"), ownedBy(job.Owner{Tenant: v, User: v})),
			w.newSubmit(inQueue("poison"), withRef("put:"+v)),
			w.newSubmit(inQueue("poison"), withIdempotency(v, v)),
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

// mixWithGood mixes the bad ops with a thousand good submits, whose ids it returns.
func (w *harness) mixWithGood(bad []any) (ops []any, good []job.ID) {
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

func badSubmits(w *harness) {
	ops, good := w.mixWithGood(badOpsOf(w))
	culprits := w.commitInHalves(ops...)
	for _, id := range good {
		w.job(id)
	}
	wantEqual(w, "the good jobs", w.counts(queue).Queued, int64(len(good)))
	wantEqual(w, "the good jobs claimed", len(w.claim(queue, len(good)+1)), len(good))
	for _, op := range ops {
		s := op.(*store.Submit)
		_, err := w.store.Job(w.ctx, s.Job.Owner, s.Job.ID)
		if stored := err == nil; stored != (s.Err == nil && s.Existing == nil && !slices.Contains(culprits, op)) {
			w.Errorf("a submit answered %v and its job reads %v", s.Err, err)
		}
	}
}

func badOutput(w *harness) {
	for _, v := range badValues() {
		bad, good := w.running(), w.running()
		output := newAppend(bad.Lease(), 1, 0, v, v)
		output.Progress = &job.Progress{Percent: 1e300, Status: v}
		f := newFinish(bad.Lease(), job.Succeeded)
		f.Result = &job.Result{ContentType: v, Body: []byte(v)}
		f.Failure = &job.Failure{Code: v, Message: v}
		f.Usage = []byte(v)
		w.commitInHalves(
			newAppend(good.Lease(), 1, 0, "good"), output, newRenew(good.Lease(), leaseFor),
			newFinish(good.Lease(), job.Succeeded), f, newWrite(store.Row{Owner: job.Owner{Tenant: v, User: v}, Kind: v, Parent: v, ID: v, Body: []byte(v)}),
		)
		wantEqual(w, "the state of the neighbour", w.job(good.Job.ID).State, job.Succeeded)
		wantEqual(w, "the output of the neighbour", w.textOf(good.Job.ID), "good")
		w.try(newFinish(bad.Lease(), job.Failed)) // in case the store did not take the finish
		if !w.job(bad.Job.ID).State.Ended() {
			w.Errorf("a job with the output %q cannot be ended", v)
		}
	}
}

func badProgress(w *harness) {
	for _, percent := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 1e308} {
		bad, good := w.running(), w.running()
		output, f := newAppend(bad.Lease(), 1, 0, "a"), newFinish(bad.Lease(), job.Failed)
		output.Progress, f.Progress = &job.Progress{Percent: percent}, &job.Progress{Percent: percent}
		fine := newAppend(good.Lease(), 1, 0, "good")
		w.commitInHalves(output, fine, f)
		wantEqual(w, "the output of the neighbour", w.textOf(good.Job.ID), "good")
		w.try(newFinish(bad.Lease(), job.Failed)) // in case the store did not take the finish
		wantEqual(w, "the state", w.job(bad.Job.ID).State, job.Failed)
		w.do(newFinish(good.Lease(), job.Succeeded))
	}
}

func refusedOps(w *harness) {
	running, succeeded := w.running(), w.running()
	w.do(newFinish(succeeded.Lease(), job.Succeeded))
	w.do(newWrite(put("p", "there", "")))
	lost := job.Lease{Job: running.Job.ID, Token: w.token()}
	bad := []any{
		newRenew(lost, leaseFor), newAppend(lost, 1, 0, "x"), newAppend(running.Lease(), 1, 7, "gap"),
		newFinish(lost, job.Succeeded), newLapse(running.Lease(), job.Queued), newFinish(job.Lease{}, job.Failed),
		newCancel(w.id()), newDelete(w.id()), newRetry(w.id()), newRetry(succeeded.Job.ID),
		newWrite(withAction(store.Insert, put("p", "there", ""))), newWrite(withAction(store.Require, put("p", "absent", ""))),
		w.newSubmit(withRows(withAction(store.Insert, put("p", "there", "")))),
	}
	ops, good := w.mixWithGood(bad)
	w.try(ops...)
	for _, op := range bad {
		if errOf(op) == nil {
			w.Errorf("%T applied and should have been refused", op)
		}
	}
	wantEqual(w, "the good jobs", w.counts(queue), job.Counts{Queued: int64(len(good)), Running: 1, Succeeded: 1})
	wantEqual(w, "the rows", len(w.rows("note", "p")), 1)
	wantEqual(w, "the text of the running job", w.textOf(running.Job.ID), "")
}

func valuesKept(w *harness) {
	for _, v := range badValues() {
		s := w.newSubmit(withKey(v), withInput(v), withIdempotency(v, v))
		if len(w.commitInHalves(s)) > 0 {
			continue
		}
		j := w.job(s.Job.ID)
		wantEqual(w, "the key", j.Key, v)
		input, err := w.store.Input(w.ctx, mine, j.ID)
		if err != nil || !bytes.Equal(input, []byte(v)) {
			w.Errorf("an input of %d bytes was read as %d bytes, %v", len(v), len(input), err)
		}
		listed := w.listAll(job.Filter{Owner: mine, Key: &v})
		wantEqual(w, "the jobs of the key", len(listed), 1)
		id, _, err := w.store.Idempotent(w.ctx, mine, v)
		if err != nil || id != j.ID {
			w.Errorf("the idempotency key %.20q names %s, %v", v, id, err)
		}
		w.advance(time.Second)
		w.do(newCancel(j.ID))
	}
}
