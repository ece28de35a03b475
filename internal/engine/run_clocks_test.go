package engine

import (
	"context"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// sweepOverdue ends the attempts that are overdue by a clock of the store. The sweep does this
// for workers without a runner.
func (w *sweepHarness) sweepOverdue(which store.RunningFilter) {
	w.t.Helper()
	w.sweeper.hasClockJumped() // the sweep has noticed the jump of the clock
	if err := w.sweeper.endAttempts(w.t.Context(), which); err != nil {
		w.t.Fatal(err)
	}
}

// An attempt that the sweep ends by a clock fails with the same fault as from its runner. It
// does not count as lost.
func TestSweepEndsOverdueAttempts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		which  store.RunningFilter
		clocks job.Timeouts
		retry  job.Retry
		output bool
		after  time.Duration
		code   string
		want   job.State
	}{
		"an overrun is final":      {store.OverrunOnly, job.Timeouts{RunHard: 5 * time.Second}, job.Retry{}, true, 5 * time.Second, "timeout", job.Failed},
		"or retried, if allowed":   {store.OverrunOnly, job.Timeouts{RunHard: 5 * time.Second}, job.Retry{OnTimeout: true}, true, 5 * time.Second, "timeout", job.Scheduled},
		"no output":                {store.SilentOnly, job.Timeouts{FirstOutput: 3 * time.Second}, job.Retry{}, false, 3 * time.Second, "first_output_timeout", job.Scheduled},
		"no further output":        {store.SilentOnly, job.Timeouts{IdleOutput: 2 * time.Second}, job.Retry{}, true, 2 * time.Second, "idle_output_timeout", job.Scheduled},
		"output may make it final": {store.SilentOnly, job.Timeouts{IdleOutput: 2 * time.Second}, job.Retry{AfterOutput: job.FailAfterOutput}, true, 2 * time.Second, "idle_output_timeout", job.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newSweepHarness(t, time.Nanosecond)
			p := w.queues["q"].Policy
			c.clocks.Lease, c.clocks.CancelGrace = time.Minute, time.Minute
			p.Timeouts, p.Retry = c.clocks, c.retry
			p.Retry.Backoff = time.Minute
			id := w.submit(Request{Policy: &p})
			claimed := <-w.jobs
			lease := claimed.Lease()
			if c.output {
				if err := w.Append(t.Context(), lease, []job.Entry{{Seq: 1, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte("a")}}, nil); err != nil {
					t.Fatal(err)
				}
			}
			w.clock.pass(c.after - time.Millisecond)
			w.sweepOverdue(c.which)
			if got := w.get(id); got.State != job.Running {
				t.Fatalf("before its time the job is %s: %+v", got.State, got.Failure)
			}
			w.clock.pass(time.Millisecond)
			w.sweepOverdue(c.which)
			if o := <-w.orders; o != job.OrderLost {
				t.Errorf("the worker was ordered %d", o)
			}
			if got := w.get(id); got.State != c.want || got.Failure.Code != c.code || got.Losses != 0 {
				t.Errorf("the job is %s after %d losses: %+v", got.State, got.Losses, got.Failure)
			}
			if how := w.observer.ended; len(how) != 1 || how[0] == EndedLost {
				t.Errorf("the attempt ended as %v", how)
			}
		})
	}
}

// The ordinary sweep ignores these clocks. They belong to the runner, which restarts them when
// the work had to wait.
func TestSweepLeavesRunTimeoutsToRunner(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Nanosecond)
	p := w.queues["q"].Policy
	p.Timeouts = job.Timeouts{Lease: time.Hour, RunHard: time.Second, FirstOutput: time.Second}
	id := w.submit(Request{Policy: &p})
	<-w.jobs
	w.clock.pass(time.Minute)
	w.sweep()
	if got := w.get(id); got.State != job.Running {
		t.Errorf("the job is %s: %+v", got.State, got.Failure)
	}
}

// interruptedStore calls afterRead between the read of a sweep and its commit.
type interruptedStore struct {
	store.Store
	afterRead func()
}

func (m *interruptedStore) Running(ctx context.Context, which store.RunningFilter, after job.ID, limit int) ([]store.Running, error) {
	list, err := m.Store.Running(ctx, which, after, limit)
	if m.afterRead != nil && which == store.SilentOnly {
		m.afterRead()
	}
	return list, err
}

// Output that arrives after the read of the sweep prevents the end of the job, and its slot
// stays in use.
func TestOutputDuringSweepKeepsJob(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	s := NewTestStore(t, sqlite.Options{Clock: c.Now, Unsynced: true})
	m := &interruptedStore{Store: s}
	w := newSweepHarnessOver(t, c, Config{Store: m, RenewEvery: time.Nanosecond})
	p := w.queues["q"].Policy
	p.Timeouts.FirstOutput, p.Timeouts.IdleOutput = time.Second, time.Second
	id := w.submit(Request{Policy: &p})
	claimed := <-w.jobs
	lease := claimed.Lease()
	w.clock.pass(time.Second)
	m.afterRead = func() {
		if err := w.Append(t.Context(), lease, []job.Entry{{Seq: 1, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte("a")}}, nil); err != nil {
			t.Error(err)
		}
	}
	w.sweepOverdue(store.SilentOnly)
	if got := w.get(id); got.State != job.Running {
		t.Errorf("the job is %s: %+v", got.State, got.Failure)
	}
	if _, err := w.Finish(t.Context(), lease, job.Outcome{}); err != nil {
		t.Error(err)
	}
}
