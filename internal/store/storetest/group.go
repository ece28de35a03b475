package storetest

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func groupRules() []rule {
	return []rule{
		{"a group applies whole, in its order", groupApplies},
		{"when one submit of a group is refused, all of the group are, and no other submit is", groupRefused},
		{"the jobs of a group count against the limit of waiting jobs", groupCounts},
		{"known idempotency keys in a group answer their jobs and refuse nothing", groupKnown},
		{"an incomplete group is refused", groupSplit},
		{"consecutive groups are checked apart", groupsApart},
	}
}

// grouped makes a group of the submits.
func grouped(submits ...*store.Submit) (ops []any) {
	g := &store.Group{Size: len(submits)}
	for _, s := range submits {
		s.Group = g
		ops = append(ops, s)
	}
	return ops
}

func (w *harness) newSubmits(n int, edits ...func(*store.Submit)) (all []*store.Submit) {
	for range n {
		all = append(all, w.newSubmit(edits...))
	}
	return all
}

func groupApplies(w *harness) {
	all := w.newSubmits(5, withFiles("a"))
	all = append(all, w.newSubmit(leasedAs(w.token())), w.newSubmit(delayed(1)), w.newSubmit(withIdempotency("k", "a"), withRows(put("p", "a", "x"))))
	w.do(grouped(all...)...)
	for _, s := range all {
		wantEqual(w, "the answer", text(s.Job), text(w.job(s.Job.ID)))
	}
	for i, c := range w.claim(queue, 5) {
		wantEqual(w, "the job claimed", c.Job.ID, all[i].Job.ID)
	}
	wantEqual(w, "the rows", len(w.rows("note", "p")), 1)
}

func groupRefused(w *harness) {
	w.setLimits(queue, job.Limits{KeyWaiting: 100})
	w.submit(withIdempotency("known", "a"))
	w.do(newWrite(put("p", "there", "was here")))
	for name, bad := range map[string]struct {
		edit func(*store.Submit)
		code job.Code
	}{
		"a row that is there":   {withRows(put("p", "new", ""), withAction(store.Insert, put("p", "there", ""))), job.Conflict},
		"a row that is missing": {withRows(put("p", "new", ""), withAction(store.Require, put("p", "absent", ""))), job.NotFound},
		"another request":       {withIdempotency("known", "b"), job.IdempotencyMismatch},
	} {
		group := w.newSubmits(4, withRows(put("p", "new", "")))
		group[1].Rows, group[2].Idempotency = nil, &store.Idempotency{Key: "free", Keep: day}
		bad.edit(group[1])
		before, after := w.newSubmit(withKey("before")), w.newSubmit(withKey("after"))
		w.try(append(append([]any{before}, grouped(group...)...), after)...)
		for i, s := range group {
			want := job.BatchRefused
			if i == 1 {
				want = bad.code
			}
			w.wantCode(want, s.Err)
			w.wantGone(mine, s.Job.ID)
		}
		if before.Err != nil || after.Err != nil {
			w.Errorf("with %s the neighbours were refused: %v, %v", name, before.Err, after.Err)
		}
		_, _, err := w.store.Idempotent(w.ctx, mine, "free")
		w.wantCode(job.NotFound, err)
	}
	wantEqual(w, "the rows", len(w.rows("note", "p")), 1)
	wantEqual(w, "the jobs", w.counts(queue).Queued, 7)
}

func groupCounts(w *harness) {
	w.setLimits(queue, job.Limits{KeyWaiting: 5})
	w.submitMany(2)
	tooMany := append(w.newSubmits(4), w.newSubmits(5, withKey("other"))...)
	w.try(grouped(tooMany...)...)
	for i, s := range tooMany {
		if i == 3 {
			w.wantCode(job.KeyFull, s.Err)
		} else {
			w.wantCode(job.BatchRefused, s.Err)
		}
	}
	wantEqual(w, "the jobs after a group with one too many", w.counts(queue).Queued, 2)
	w.do(grouped(append(append(w.newSubmits(3), w.newSubmits(5, withKey("other"))...), w.newSubmits(9, inQueue("free"))...)...)...)
	wantEqual(w, "the jobs after a group that fits", w.counts(queue).Queued, 10)

	w.setLimits(queue, job.Limits{KeyWaiting: 1, KeyRunning: 3, Running: 2})
	leased := func(n int) []*store.Submit { // two run, the third is queued, the fourth parked
		all := w.newSubmits(n, withKey("leased"))
		for _, s := range all {
			leasedAs(w.token())(s)
		}
		return all
	}
	w.try(grouped(leased(4)...)...)
	wantEqual(w, "the running jobs of a group with one too many", w.counts(queue).Running, 0)
	w.do(grouped(leased(3)...)...)
	wantEqual(w, "the running jobs of a group that fits", w.counts(queue).Running, 2)
}

func groupKnown(w *harness) {
	w.setLimits(queue, job.Limits{KeyWaiting: 3})
	id := w.submit(withIdempotency("known", "a"))
	w.submit()
	group := []*store.Submit{w.newSubmit(withIdempotency("known", "a")), w.newSubmit(withIdempotency("new", "a")), w.newSubmit(withIdempotency("new", "a"))}
	w.do(grouped(group...)...)
	if group[0].Existing == nil || group[0].Existing.ID != id {
		w.Errorf("a known key is not answered")
	}
	wantEqual(w, "whether the new one existed", group[1].Existing == nil, true)
	if group[2].Existing == nil || group[2].Existing.ID != group[1].Job.ID {
		w.Errorf("a key used twice in a group made two jobs")
	}
	again := []*store.Submit{w.newSubmit(withIdempotency("known", "a")), w.newSubmit(withIdempotency("other", "a"), withKey("k")), w.newSubmit(withIdempotency("other", "b"), withKey("k"))}
	w.try(grouped(again...)...)
	w.wantCode(job.BatchRefused, again[0].Err)
	w.wantCode(job.BatchRefused, again[1].Err)
	w.wantCode(job.IdempotencyMismatch, again[2].Err)
	if again[0].Existing != nil {
		w.Errorf("a refused submit answers a job")
	}
	wantEqual(w, "the jobs", w.counts(queue).Queued, 3)
}

func groupSplit(w *harness) {
	group := w.newSubmits(3)
	all := grouped(group...)
	w.try(all[:2]...)
	for _, s := range group[:2] {
		w.wantCode(job.BatchRefused, s.Err)
		w.wantGone(mine, s.Job.ID)
	}
}

func groupsApart(w *harness) {
	w.setLimits(queue, job.Limits{KeyWaiting: 3})
	one, two, three := w.newSubmits(2), w.newSubmits(2), w.newSubmits(1)
	w.try(append(append(grouped(one...), grouped(two...)...), grouped(three...)...)...)
	wantEqual(w, "the first group's refusal", one[0].Err, nil)
	w.wantCode(job.BatchRefused, two[0].Err)
	w.wantCode(job.KeyFull, two[1].Err)
	wantEqual(w, "the third group's refusal", three[0].Err, nil)
}
