package engine_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// heldBy checks what holds a job back.
func (h *house) heldBy(what string, id job.ID, want job.HeldBackBy) {
	h.t.Helper()
	s, err := h.Get(h.t.Context(), local, id)
	if err != nil {
		h.t.Fatal(err)
	}
	if s.HeldBackBy != want {
		h.t.Errorf("%s: a job that is %s is held back by %q, want %q", what, s.State, s.HeldBackBy, want)
	}
}

// queueHeldBy checks what holds the jobs of the queue back.
func (h *house) queueHeldBy(what string, want job.HeldBackBy) {
	h.t.Helper()
	all, err := h.Queues(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	if got := all[0].HeldBackBy; got != want {
		h.t.Errorf("%s: the queue is held back by %q, want %q", what, got, want)
	}
}

func (h *house) pause(on bool) {
	h.t.Helper()
	if _, err := h.SetPaused(h.t.Context(), "sim", on); err != nil {
		h.t.Fatal(err)
	}
}

// elsewhere passes the time in which another process's change shows here.
func elsewhere() {
	time.Sleep(within)
	synctest.Wait()
}

// Every wait has its reason.
func TestWhatHoldsAJobBack(t *testing.T) {
	t.Parallel()
	beside(t, func(t *testing.T, s *shared) {
		q := queues()
		q[0].MaxRunning, q[0].KeyRunning, q[0].MaxDepth, q[0].MaxAttempts = 2, 1, 20, 9
		q[0].Policy.Retry.Backoff = time.Minute
		a := startWith(t, s, q)
		defer a.stop()
		alone := a.submit(engine.Request{})
		a.heldBy("nobody works", alone.ID, job.HeldBackByNoWorker)
		a.queueHeldBy("nobody works", job.HeldBackByNoWorker)
		a.pause(true)
		a.heldBy("paused", alone.ID, job.HeldBackByPause)
		a.queueHeldBy("paused", job.HeldBackByPause)
		a.pause(false)
		a.serve(1)
		first := a.gets("resumed")
		a.heldBy("it runs", first.Job.ID, "")
		turn := a.submit(engine.Request{})
		a.heldBy("the slot is taken", turn.ID, job.HeldBackByTurn)
		a.queueHeldBy("the slot is taken", job.HeldBackByTurn)
		later := a.submit(engine.Request{Delay: time.Hour})
		a.heldBy("delayed", later.ID, job.HeldBackByDelay)
		a.finish(first, job.Outcome{Fault: &job.Fault{Code: "x", Message: "x", Class: job.Retryable}})
		a.heldBy("failed", first.Job.ID, job.HeldBackByBackoff)
		second := a.gets("the slot is free")
		a.finish(second, job.Outcome{})
		a.heldBy("it has ended", second.Job.ID, "")
		a.queueHeldBy("a slot is free", "")

		a.submit(engine.Request{Key: "k"})
		keyed := a.gets("of a key")
		parked := a.submit(engine.Request{Key: "k"})
		a.heldBy("its key runs", parked.ID, job.HeldBackByKey)
		a.finish(keyed, job.Outcome{})
		a.gets("of the key again")
		a.serve(3)
		a.submit(engine.Request{})
		a.gets("with a second worker")
		most := a.submit(engine.Request{})
		a.heldBy("as many run as may", most.ID, job.HeldBackByMaxRunning)
		a.queueHeldBy("as many run as may", job.HeldBackByMaxRunning)
	})
}

// A pause that was made through another process shows here within a second or so, and
// so does a worker there.
func TestWhatHoldsAJobBackInAnotherProcess(t *testing.T) {
	t.Parallel()
	beside(t, func(t *testing.T, s *shared) {
		a, b := start(t, s), start(t, s)
		defer a.stop()
		defer b.stop()
		snap := a.submit(engine.Request{})
		b.pause(true)
		elsewhere()
		a.heldBy("paused elsewhere", snap.ID, job.HeldBackByPause)
		b.pause(false)
		elsewhere()
		a.heldBy("resumed elsewhere", snap.ID, job.HeldBackByNoWorker)
		b.serve(1)
		b.gets("resumed")
		next := a.submit(engine.Request{})
		elsewhere()
		a.heldBy("the worker there has a job", next.ID, job.HeldBackByTurn)
	})
}
