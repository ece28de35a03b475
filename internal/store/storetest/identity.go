package storetest

import (
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// The identity of a job inside a store is never reused: not after a delete, a reopening or a
// failed commit. A store that breaks this shows one owner the data of another.
func identityRules() []rule {
	return []rule{
		{"a new job has no data of a job that was removed before", long(identityRemoved)},
		{"the output of a removed job never replaces the output of a new one", long(identityReplaced)},
		{"a prune finds every job that was submitted after a removed one", long(identityCursor)},
	}
}

// removals lists the ways to remove a running job with output.
func removals() map[string]func(w *harness, l job.Lease) {
	return map[string]func(w *harness, l job.Lease){
		"deleted after its end": func(w *harness, l job.Lease) {
			w.do(newFinish(l, job.Succeeded))
			w.do(newDelete(l.Job))
		},
		"deleted while it ran":            func(w *harness, l job.Lease) { w.do(newDelete(l.Job)); w.do(newFinish(l, job.Failed)) },
		"deleted by the batch of its end": func(w *harness, l job.Lease) { w.do(newFinish(l, job.Succeeded), newDelete(l.Job)) },
		"deleted when it waited again":    func(w *harness, l job.Lease) { w.do(newFinish(l, job.Queued)); w.do(newDelete(l.Job)) },
		"pruned":                          func(w *harness, l job.Lease) { w.do(newFinish(l, job.Succeeded)); w.advance(day); w.do(newPrune()) },
		"pruned before its time": func(w *harness, l job.Lease) {
			w.do(newFinish(l, job.Failed))
			w.do(&store.Prune{Limit: 1000, Early: true})
		},
		"deleted, and its worker was lost": func(w *harness, l job.Lease) {
			w.do(newDelete(l.Job))
			w.advance(2 * leaseFor)
			w.do(newLapse(l, job.Queued))
		},
	}
}

// loads lists the events after which a store reads its in-memory state again.
func loads() map[string]func(w *harness) {
	return map[string]func(w *harness){"a commit that failed": (*harness).failCommit, "an opening": (*harness).reopen}
}

// failCommit commits a batch that fails, because the id of its submit exists.
func (w *harness) failCommit() {
	w.Helper()
	first := w.newSubmit(inQueue("failed commit"))
	w.do(first)
	again := w.newSubmit(inQueue("failed commit"))
	again.Job.ID = first.Job.ID
	if err := w.commitTo(batchOf(again)); err != nil && !errors.Is(err, store.ErrData) {
		w.Fatalf("a submit whose id is in use: %v", err)
	}
	w.do(newDelete(first.Job.ID))
}

// eachRemoval removes a job with output in every way, and makes the store load again. Then it
// calls f, which submits the next job and may load again.
func (w *harness) eachRemoval(f func(how string, load func())) {
	w.Helper()
	w.running(inQueue("older"))
	for how, remove := range removals() {
		for before, loadBefore := range loads() {
			for after, loadAfter := range loads() {
				c := w.running(withFiles("a"), mayBeAbandoned)
				output := newAppend(c.Lease(), 1, 0, "a secret", " of its owner")
				output.Progress = &job.Progress{Percent: 50, Status: "Secret"}
				w.do(output)
				remove(w, c.Lease())
				w.wantGone(mine, c.Job.ID)
				loadBefore(w)
				f("a job was "+how+", then came "+before+", a new job, and "+after, func() { loadAfter(w) })
			}
		}
	}
}

func identityRemoved(w *harness) {
	w.eachRemoval(func(how string, load func()) {
		s := w.newSubmit(leasedAs(w.token()), ownedBy(theirs))
		w.do(s)
		load()
		j, entries, err := w.store.Output(w.ctx, theirs, s.Job.ID, 0, 1<<20)
		if err != nil || j.Cursor != 0 || j.OutputBytes != 0 || len(entries) > 0 || j.Progress != (job.Progress{}) {
			w.Fatalf("%s, which has no output, but the cursor %d, %d bytes, the progress %v and the entries %v: %v", how, j.Cursor, j.OutputBytes, j.Progress, entries, err)
		}
		if _, text, err := w.store.Text(w.ctx, theirs, s.Job.ID, 1<<20); err != nil || text != "" {
			w.Fatalf("%s, which has no output, but the text %q: %v", how, text, err)
		}
		wantEqual(w, "jobs that may be abandoned", len(readAllPages(w, w.store.Abandonable)), 0)
		wantEqual(w, "jobs with files", len(readAllPages(w, w.store.WithFiles)), 0)
	})
}

func identityReplaced(w *harness) {
	w.eachRemoval(func(how string, load func()) {
		s := w.newSubmit(leasedAs(w.token()), ownedBy(theirs))
		l := job.Lease{Job: s.Job.ID, Token: s.Token}
		w.do(s)
		w.do(newAppend(l, 1, 0, "its own"))
		load()
		w.do(newAppend(l, 1, 1, " words"))
		if _, text, err := w.store.Text(w.ctx, theirs, l.Job, 100); err != nil || text != "its own words" {
			w.Fatalf("%s, which has the text %q: %v", how, text, err)
		}
	})
}

// A prune continues after its cursor, and reads every job that was submitted since.
func identityCursor(w *harness) {
	p := &store.Prune{}
	w.eachRemoval(func(how string, load func()) {
		c := w.running()
		w.do(newFinish(c.Lease(), job.Succeeded))
		load()
		w.advance(day)
		for pages := 0; ; pages++ {
			p = &store.Prune{Limit: 10, After: p.Next}
			w.do(p)
			if _, err := w.store.Job(w.ctx, mine, c.Job.ID); job.CodeOf(err) == job.NotFound {
				break
			}
			if pages > 100 {
				w.Fatalf("%s, and no prune found it", how)
			}
		}
	})
}
