package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const patience = 2 * time.Minute

// abandonable is a job of the swept queue that asks to be cancelled when nobody
// was seen at it for two minutes.
func abandonable() Request {
	p := job.Policy{Timeouts: job.Timeouts{Lease: time.Hour, CancelGrace: 10 * time.Second, Abandon: patience}}
	return Request{Policy: &p}
}

// look lets the next sweep look for abandoned jobs. What the clock was moved by has
// really passed: it did not jump. Nor does it seem to when the machine stalls: whoever
// looks is in a bubble, in which no other time passes.
func (w *swept) look() {
	w.sweeper.cared = time.Time{}
	w.sweeper.clock = w.sweeper.drift()
	w.sweep()
}

// Each way of being there keeps a job; nothing else does.
func TestAJobIsAbandonedWhenNobodyIsSeenAtIt(t *testing.T) {
	owner := job.Owner{User: "u"}
	for name, c := range map[string]struct {
		seen func(w *swept, id job.ID)
		want job.State
	}{
		"nobody":               {func(*swept, job.ID) {}, job.Cancelled},
		"a poll":               {func(w *swept, id job.ID) { w.get(id) }, job.Queued},
		"a heartbeat":          {func(w *swept, _ job.ID) { w.Present(owner) }, job.Queued},
		"another's heartbeat":  {func(w *swept, _ job.ID) { w.Present(job.Owner{User: "v"}) }, job.Cancelled},
		"another's poll":       {func(w *swept, id job.ID) { _, _ = w.Get(w.t.Context(), job.Owner{User: "v"}, id) }, job.Cancelled},
		"a stall of ours":      {func(w *swept, _ job.ID) { w.sweeper.unhealthy() }, job.Queued},
		"a look at its output": {func(w *swept, id job.ID) { _, _ = w.Output(w.t.Context(), owner, id, 0, 0) }, job.Queued},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { leave(t, owner, c.seen, c.want) }) })
	}
}

// leave has someone seen at a job halfway, and nobody after.
func leave(t *testing.T, owner job.Owner, seen func(w *swept, id job.ID), want job.State) {
	w := newSwept(t, time.Hour)
	w.submit(Request{})
	<-w.jobs // the only slot is taken
	id := w.submit(abandonable())
	w.clock.pass(patience / 2)
	seen(w, id)
	w.look()
	w.clock.pass(patience/2 + time.Second)
	w.look()
	j, err := w.store.Job(t.Context(), owner, id)
	if err != nil || j.State != want {
		t.Errorf("the job is %v, want %v (%v)", j.State, want, err)
	}
}

// A watcher is seen for as long as it watches, and a running job is told to stop.
func TestARunningJobIsAbandonedWhenItsWatcherHasLeft(t *testing.T) {
	synctest.Test(t, aRunningJobIsAbandonedWhenItsWatcherHasLeft)
}

func aRunningJobIsAbandonedWhenItsWatcherHasLeft(t *testing.T) {
	w := newSwept(t, time.Hour)
	id := w.submit(abandonable())
	c := <-w.jobs
	watch, err := w.Watch(t.Context(), job.Owner{User: "u"}, id, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.clock.pass(patience)
		w.look()
	}
	if len(w.orders) > 0 {
		t.Fatal("a watched job was abandoned")
	}
	watch.Close()
	w.clock.pass(patience + time.Second)
	w.look()
	if o := <-w.orders; o != job.OrderCancel {
		t.Fatalf("the worker was ordered %v", o)
	}
	if state, err := w.Finish(t.Context(), c.Lease(), job.Outcome{Cancelled: true}); state != job.Cancelled || err != nil {
		t.Errorf("%v, %v", state, err)
	}
}

// What has ended is not remembered.
func TestNothingIsRememberedOfEndedJobs(t *testing.T) {
	w := newSwept(t, time.Hour)
	w.submit(abandonable())
	c := <-w.jobs
	waiting := w.submit(abandonable())
	if n := len(w.abandons.jobs); n != 2 {
		t.Fatalf("%d jobs are remembered, want 2", n)
	}
	if _, err := w.Finish(t.Context(), c.Lease(), job.Outcome{}); err != nil {
		t.Fatal(err)
	}
	<-w.jobs
	if err := w.Delete(t.Context(), job.Owner{User: "u"}, waiting); err != nil {
		t.Fatal(err)
	}
	if len(w.abandons.jobs) != 0 || len(w.abandons.owners) != 0 {
		t.Errorf("%d jobs of %d owners are remembered", len(w.abandons.jobs), len(w.abandons.owners))
	}
}
