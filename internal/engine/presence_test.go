package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const abandonAfter = 2 * time.Minute

// abandonableRequest is a request for a job that is cancelled after two minutes without a
// presence.
func abandonableRequest() Request {
	p := job.Policy{Timeouts: job.Timeouts{Lease: time.Hour, CancelGrace: 10 * time.Second, Abandon: abandonAfter}}
	return Request{Policy: &p}
}

// passAndSweep advances the time of the bubble and of the store, and sweeps.
func (w *sweepHarness) passAndSweep(after time.Duration) {
	time.Sleep(after)
	w.clock.pass(after)
	w.sweeper.abandonCheckedAt = time.Time{}
	w.sweep()
}

// Each kind of presence prevents the cancel of a job. Nothing else does.
func TestJobWithoutPresenceIsAbandoned(t *testing.T) {
	t.Parallel()
	owner := job.Owner{User: "u"}
	for name, c := range map[string]struct {
		use  func(w *sweepHarness, id job.ID)
		want job.State
	}{
		"none":                 {func(*sweepHarness, job.ID) {}, job.Cancelled},
		"a poll":               {func(w *sweepHarness, id job.ID) { w.get(id) }, job.Queued},
		"a heartbeat":          {func(w *sweepHarness, _ job.ID) { w.MarkPresent(owner) }, job.Queued},
		"another's heartbeat":  {func(w *sweepHarness, _ job.ID) { w.MarkPresent(job.Owner{User: "v"}) }, job.Cancelled},
		"another's poll":       {func(w *sweepHarness, id job.ID) { _, _ = w.Get(w.t.Context(), job.Owner{User: "v"}, id) }, job.Cancelled},
		"an outage":            {func(w *sweepHarness, _ job.ID) { w.sweeper.markUnhealthy() }, job.Queued},
		"a look at its output": {func(w *sweepHarness, id job.ID) { _, _ = w.Output(w.t.Context(), owner, id, 0, 0) }, job.Queued},
		"a waiting request":    {func(w *sweepHarness, id job.ID) { _, _ = w.Wait(w.t.Context(), owner, id, time.Second) }, job.Queued},
		"a restart":            {func(w *sweepHarness, _ job.ID) { w.presence = newPresence() }, job.Queued},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testAbandon(t, owner, c.use, c.want) })
		})
	}
}

// testAbandon uses a job once halfway through its timeout, and not after that.
func testAbandon(t *testing.T, owner job.Owner, use func(w *sweepHarness, id job.ID), want job.State) {
	w := newSweepHarness(t, time.Hour)
	w.submit(Request{})
	<-w.jobs // uses the only slot
	id := w.submit(abandonableRequest())
	w.passAndSweep(abandonAfter / 2)
	use(w, id)
	w.passAndSweep(0)
	w.passAndSweep(abandonAfter/2 + 5*time.Second)
	j, err := w.store.Job(t.Context(), owner, id)
	if err != nil || j.State != want {
		t.Errorf("the job is %v, want %v (%v)", j.State, want, err)
	}
}

// A watcher is present while it watches. Once it has left and the timeout has passed, the worker
// of the running job gets a cancel order.
func TestRunningJobIsAbandonedAfterWatchCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSweepHarness(t, time.Hour)
		id := w.submit(abandonableRequest())
		c := <-w.jobs
		watch, err := w.Watch(t.Context(), job.Owner{User: "u"}, id, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			w.passAndSweep(abandonAfter / 4)
		}
		if len(w.orders) > 0 {
			t.Fatal("a watched job was abandoned")
		}
		watch.Close()
		for range 7 { // until the last presence is stored
			w.passAndSweep(abandonEvery)
		}
		w.passAndSweep(abandonAfter - 2*abandonEvery)
		if len(w.orders) > 0 {
			t.Fatal("a job was abandoned too soon after its watcher had left")
		}
		w.passAndSweep(2 * abandonEvery)
		if o := <-w.orders; o != job.OrderCancel {
			t.Fatalf("the worker was ordered %v", o)
		}
		if state, err := w.Finish(t.Context(), c.Lease(), job.Outcome{Cancelled: true}); state != job.Cancelled || err != nil {
			t.Errorf("%v, %v", state, err)
		}
	})
}

// A presence is stored at most four times in the shortest timeout, even with many requests, and
// never without requests.
func TestPresenceIsStoredAtMostEachInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSweepHarness(t, time.Hour)
		id := w.submit(abandonableRequest())
		<-w.jobs
		stores := 0
		for range 60 {
			w.get(id)
			w.MarkPresent(job.Owner{User: "u"})
			time.Sleep(time.Second)
			if op := w.presence.takeUnstored(time.Now()); op != nil {
				stores += len(op.Jobs) + len(op.Owners)
			}
		}
		if stores != 4 {
			t.Errorf("%d presences are stored in a minute, want 4: a job's and an owner's, twice", stores)
		}
		time.Sleep(presenceInterval)
		_ = w.presence.takeUnstored(time.Now())
		time.Sleep(presenceInterval)
		if op := w.presence.takeUnstored(time.Now()); op != nil || len(w.presence.jobs)+len(w.presence.owners) > 0 {
			t.Errorf("without presence %v is stored, and %d jobs and %d owners are remembered", op, len(w.presence.jobs), len(w.presence.owners))
		}
	})
}

// The next sweep stores a presence whose commit failed.
func TestFailedPresenceIsStoredLater(t *testing.T) {
	t.Parallel()
	p := newPresence()
	j := job.Job{ID: job.NewID(), State: job.Running, Policy: job.Policy{Timeouts: job.Timeouts{Abandon: abandonAfter}}}
	p.touch(&j)
	now := time.Now()
	op := p.takeUnstored(now)
	if op == nil || p.takeUnstored(now) != nil {
		t.Fatal("a presence is to be stored once")
	}
	p.markUnstored(op)
	if again := p.takeUnstored(now); again == nil || len(again.Jobs) != 1 {
		t.Errorf("after a failed commit %v is stored", again)
	}
	if op := p.takeUnstored(now.Add(time.Hour)); op != nil || len(p.jobs) > 0 {
		t.Errorf("later %v is stored, and %d jobs are remembered", op, len(p.jobs))
	}
}
