package engine

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// end runs jobs of so many bytes to their end.
func (w *swept) end(jobs, size int) (ids []job.ID) {
	w.t.Helper()
	for range jobs {
		ids = append(ids, w.submit(Request{Input: make([]byte, size)}))
		c := <-w.jobs
		if _, err := w.Finish(w.t.Context(), c.Lease(), job.Outcome{}); err != nil {
			w.t.Fatal(err)
		}
	}
	return ids
}

func (w *swept) left(ids []job.ID) (n int) {
	w.t.Helper()
	for _, id := range ids {
		switch _, err := w.Get(w.t.Context(), job.Owner{User: "u"}, id); job.CodeOf(err) {
		case "":
			n++
		case job.NotFound:
		default:
			w.t.Fatal(err)
		}
	}
	return n
}

func (w *swept) size() int64 {
	w.t.Helper()
	n, err := w.store.Size(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// A store that holds more than it may loses its oldest ended jobs before their
// time, until it holds nine tenths of that; what has not ended stays.
func TestShrinkDeletesTheOldest(t *testing.T) {
	w := newSwept(t, time.Hour)
	waiting := w.submit(Request{Delay: time.Minute, Input: make([]byte, 100_000)})
	ids := w.end(100, 100_000)
	p := newPruner(w.Engine, w.size()+1)
	if err := p.shrink(t.Context()); err != nil || w.left(ids) != len(ids) {
		t.Fatalf("with room left, %d of %d jobs are there: %v", w.left(ids), len(ids), err)
	}
	p.most = w.size() / 2
	if err := p.shrink(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.left(ids); n == 0 || n > 50 || w.left(ids[100-n:]) != n {
		t.Errorf("%d jobs are left, %d of them among the newest", n, w.left(ids[100-n:]))
	}
	if size := w.size(); size > p.most/10*9 {
		t.Errorf("the store holds %d of the %d bytes that it may", size, p.most)
	}
	w.get(waiting)
}

// A store of which nothing can be deleted is left alone for a while.
func TestShrinkGivesUp(t *testing.T) {
	w := newSwept(t, time.Hour)
	waiting := w.submit(Request{Delay: time.Minute, Input: make([]byte, 100_000)})
	p := newPruner(w.Engine, 1)
	for range 3 {
		if err := p.shrink(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if p.full.IsZero() {
		t.Error("the store can never hold one byte only, and nobody noticed")
	}
	w.get(waiting)
}

// A pass goes on where the last one ended, and begins anew now and then: what it
// had to leave is deleted in the end.
func TestPassesGoOn(t *testing.T) {
	w := newSwept(t, time.Hour)
	first := w.end(pieceRows+10, 10)
	w.clock.pass(30 * time.Minute)
	held := w.submit(Request{Delay: 24 * time.Hour})
	w.clock.pass(31 * time.Minute)
	pass := func() {
		t.Helper()
		if err := w.pruner.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	pass()
	if n := w.left(first); n != 0 {
		t.Errorf("%d jobs past their time are left", n)
	}
	w.clock.pass(time.Hour) // the waiting job is old, and passed by
	w.end(pieceRows+10, 10)
	w.clock.pass(61 * time.Minute)
	pass()
	if _, err := w.Cancel(t.Context(), job.Owner{User: "u"}, held); err != nil {
		t.Fatal(err)
	}
	w.clock.pass(61 * time.Minute)
	pass()
	if w.left([]job.ID{held}) != 1 {
		t.Error("the test is to show a job that a pass leaves to a later one")
	}
	w.pruner.whole = time.Time{}
	pass()
	if w.left([]job.ID{held}) != 0 {
		t.Error("a pass that begins with the oldest left it")
	}
}
