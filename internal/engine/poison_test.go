package engine

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// crashingServer is one start of a server that a job may crash: an engine with a worker of four
// slots. The test moves its clock.
type crashingServer struct {
	*Engine
	clock *clock
	jobs  chan job.Claimed
	kill  func() // leaves running jobs in the store
}

func startCrashingServer(t *testing.T, c *clock, s store.Store) *crashingServer {
	t.Helper()
	q := testQueue(4, 1, job.Timeouts{Lease: 30 * time.Second})
	e, err := New(t.Context(), Config{Store: s, Alone: true, Queues: []Queue{q}})
	if err != nil {
		t.Fatal(err)
	}
	k := &crashingServer{Engine: e, clock: c, jobs: make(chan job.Claimed, 100)}
	k.kill = RunInBackground(e.loop)
	t.Cleanup(k.kill)
	e.Consume(job.Worker{Name: "w", Queue: "q", Slots: 4, Deliver: func(c job.Claimed) { k.jobs <- c }})
	e.sweeper.scheduleAt(c.Now())
	return k
}

// run advances the clock second by second. Each job succeeds after three seconds, but a poison
// job kills the server after one. It returns whether the server was killed.
func (k *crashingServer) run(t *testing.T, seconds int, poison map[job.ID]bool, starts map[job.ID]int) (killed bool) {
	t.Helper()
	running := map[job.ID]job.Claimed{}
	age := map[job.ID]int{}
	for range seconds {
		k.clock.pass(time.Second)
		if err := k.sweeper.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		k.flush(t)
		for len(k.jobs) > 0 {
			c := <-k.jobs
			running[c.Job.ID] = c
			starts[c.Job.ID]++
		}
		for id, c := range running {
			switch age[id]++; {
			case poison[id] && age[id] > 1:
				k.kill()
				return true
			case !poison[id] && age[id] > 3:
				if _, err := k.Finish(t.Context(), c.Lease(), job.Outcome{}); err != nil {
					t.Fatal(err)
				}
				delete(running, id)
			}
		}
	}
	return false
}

// flush returns when all earlier ops are on disk and their jobs are delivered.
func (k *crashingServer) flush(t *testing.T) {
	t.Helper()
	for range 2 { // the second batch has claims for slots that the first one freed
		if err := k.Write(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A job that kills the server each time it runs fails after several losses. Jobs that ran at the
// same time succeed, even if they have few attempts left.
func TestPoisonJobFailsAlone(t *testing.T) {
	t.Parallel()
	for _, poisonous := range []int{1, 2} {
		c := &clock{now: time.Unix(1_800_000_000, 0)}
		s := NewTestStore(t, sqlite.Options{Clock: c.Now, Unsynced: true})
		defer s.Close()
		k := startCrashingServer(t, c, s)
		poison, starts := map[job.ID]bool{}, map[job.ID]int{}
		var all []job.ID
		for i := range 8 {
			snap, _, err := k.Submit(t.Context(), Request{Owner: job.Owner{User: "u"}, Queue: "q"})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, snap.ID)
			poison[snap.ID] = i < poisonous
		}
		kills := 0
		for ; k.run(t, 120, poison, starts); kills++ {
			if kills > 20 {
				t.Fatal("the job keeps killing the server")
			}
			k = startCrashingServer(t, c, s)
		}
		for i, id := range all {
			j, err := s.Job(t.Context(), job.Owner{User: "u"}, id)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case !poison[id] && j.State != job.Succeeded:
				t.Errorf("job %d of %d poisonous ones is %s, attempt %d, lost %d: %+v", i, poisonous, j.State, j.Attempt, j.Losses, j.Failure)
			case poison[id] && (j.State != job.Failed || j.Failure.Code != "worker_lost" || j.Losses != job.MaxLosses || starts[id] != job.MaxLosses):
				t.Errorf("the poisonous job is %s, started %d times, lost %d: %+v", j.State, starts[id], j.Losses, j.Failure)
			}
		}
		k.kill()
	}
}
