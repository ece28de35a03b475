package engine

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// startBeside starts an engine on a store that other engines use too.
func startBeside(t *testing.T, c *clock, s store.Store, dead ...job.Process) *Engine {
	t.Helper()
	q := testQueue(1, 2, job.Timeouts{Lease: 30 * time.Second})
	e, err := New(t.Context(), Config{Store: s, Queues: []Queue{q}, DeadProcesses: dead})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(RunInBackground(e.loop))
	return e
}

// An engine that starts while another one runs reclaims none of its jobs. It can renew, append
// under and finish the leases that the other engine handed out. It reclaims the jobs of a dead
// process.
func TestEnginesShareLeases(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	s := NewTestStore(t, sqlite.Options{Clock: c.Now})
	t.Cleanup(func() { _ = s.Close() })
	a := startBeside(t, c, s)
	jobs := make(chan job.Claimed, 3)
	a.Consume(job.Worker{Name: "w", Queue: "q", Slots: 3, Deliver: func(c job.Claimed) { jobs <- c }})
	owner := job.Owner{User: "u"}
	var leases []job.Lease
	for range 3 {
		if _, _, err := a.Submit(t.Context(), Request{Owner: owner, Queue: "q"}); err != nil {
			t.Fatal(err)
		}
		claimed := <-jobs
		leases = append(leases, claimed.Lease())
	}
	state := func(l job.Lease, want job.State) {
		t.Helper()
		if j, err := s.Job(t.Context(), owner, l.Job); err != nil || j.State != want {
			t.Fatalf("a job is %s, want %s: %v", j.State, want, err)
		}
	}

	b := startBeside(t, c, s)
	state(leases[0], job.Running)
	if errs := b.Renew(t.Context(), leases); errs[0] != nil || errs[1] != nil || errs[2] != nil {
		t.Fatalf("leases of the other engine are renewed: %v", errs)
	}
	if err := b.Append(t.Context(), leases[0], textEntries(0, 1, []byte("from there")), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Finish(t.Context(), leases[0], job.Outcome{}); err != nil || got != job.Succeeded {
		t.Fatalf("the job ended as %s, %v", got, err)
	}
	state(leases[0], job.Succeeded)
	if err := b.Append(t.Context(), leases[0], textEntries(1, 1, []byte("late")), nil); job.CodeOf(err) != job.LeaseLost {
		t.Errorf("a lease that was finished takes output: %v", err)
	}
	if _, err := a.Finish(t.Context(), leases[0], job.Outcome{}); job.CodeOf(err) != job.LeaseLost {
		t.Errorf("the engine that handed it out finishes it again: %v", err)
	}

	startBeside(t, c, s, b.process)
	state(leases[1], job.Running)
	startBeside(t, c, s, a.process)
	state(leases[1], job.Scheduled)
	state(leases[2], job.Scheduled)
}
