package storetest

import (
	"context"
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func sweepRules() []rule {
	return []rule{
		{"jobs with files are listed for as long as there is a row of theirs", sweepFiles},
		{"a commit answers which jobs with files it removed, by any op", sweepRemoved},
	}
}

func withFiles(names ...string) func(*store.Submit) {
	return func(s *store.Submit) {
		for _, name := range names {
			s.Job.Files = append(s.Job.Files, job.File{Name: name, ContentType: "text/plain", Size: 3, SHA256: "00"})
		}
	}
}

// readAllPages reads a list to its end, in small pages.
func readAllPages[T any](w *harness, list func(ctx context.Context, after string, limit int) ([]T, string, error)) (all []T) {
	w.Helper()
	const pageSize = 3
	for after, pages := "", 0; ; pages++ {
		page, next, err := list(w.ctx, after, pageSize)
		if err != nil || len(page) > pageSize || pages > 1000 {
			w.Fatalf("page %d of %d has %d, %v", pages, pageSize, len(page), err)
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		if next == after {
			w.Fatalf("the cursor %q does not move", next)
		}
		after = next
	}
}

func sweepFiles(w *harness) {
	check := func(want ...job.ID) {
		w.Helper()
		wantEqual(w, "the jobs with files", fmt.Sprint(readAllPages(w, w.store.WithFiles)), fmt.Sprint(want))
	}
	check()
	var all []job.ID
	for i := range 7 {
		w.submit()
		all = append(all, w.submit(withFiles("a", "b"), ownedBy([]job.Owner{mine, theirs}[i%2])))
	}
	check(all...)
	ended, running := w.running(inQueue("ended"), withFiles("a")), w.running(inQueue("running"), withFiles("a"))
	w.do(newFinish(ended.Lease(), job.Succeeded), newDelete(running.Job.ID))
	check(append(all, ended.Job.ID, running.Job.ID)...)
	w.do(newDelete(all[0]), newDelete(ended.Job.ID), newFinish(running.Lease(), job.Cancelled))
	check(all[1:]...)
	w.reopen()
	check(all[1:]...)
}

func sweepRemoved(w *harness) {
	removed := func(how string, b *store.Batch, want ...job.ID) {
		w.Helper()
		wantEqual(w, "the jobs that "+how+" removed", fmt.Sprint(b.Removed), fmt.Sprint(want))
	}
	with, without := w.submit(withFiles("a")), w.submit()
	removed("a cancel", w.do(newCancel(with), newCancel(without)))
	removed("a delete", w.do(newDelete(with), newDelete(without)), with)
	removed("a second delete", w.do(newDelete(with)))
	removed("a refused delete", w.try(&store.Delete{Owner: theirs, ID: w.submit(withFiles("a"), inQueue("other"))}))

	c := w.running(withFiles("a", "b"))
	removed("the delete of a running job", w.do(newDelete(c.Job.ID)))
	w.reopen()
	removed("its end", w.do(newFinish(c.Lease(), job.Succeeded)), c.Job.ID)

	w.do(newFinish(w.running().Lease(), job.Succeeded))
	old := w.running(withFiles("a"))
	removed("a finish", w.do(newFinish(old.Lease(), job.Succeeded)))
	w.advance(2 * keep)
	removed("a prune", w.do(newPrune()), old.Job.ID)
	removed("a second prune", w.do(newPrune()))
}
