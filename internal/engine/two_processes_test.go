package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Two processes change the jobs of one queue at random, including each other's. Every watcher
// gets the final state of its job, and a runnable job starts soon while a slot is free.
func TestTwoProcessesStayConsistent(t *testing.T) {
	t.Parallel()
	for _, seed := range engine.Seeds(t, 3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			withSharedStore(t, func(t *testing.T, s *sharedStore) {
				r := newTwoProcesses(t, s, seed)
				for range 60 {
					for range 1 + r.rng.IntN(4) {
						r.step(r.processes[r.rng.IntN(len(r.processes))])
					}
					time.Sleep(pollBound)
					synctest.Wait()
					r.collectClaims()
					r.checkProgress()
				}
				r.checkFollowers()
				for _, h := range r.processes {
					h.stop()
				}
			})
		})
	}
}

// twoProcesses are two processes that consume one queue, and the random history of the queue.
type twoProcesses struct {
	t          *testing.T
	s          *sharedStore
	ctx        context.Context
	stop       func()
	rng        *rand.Rand
	processes  []*harness
	slots      int // slots of each process
	maxRunning int // max_running
	claims     []claim
	jobs       []ownedJob
	followers  []*follower
}

// follower is a watcher that reads a job until it ends.
type follower struct {
	ownedJob
	ended  atomic.Bool
	cursor int64
	gap    bool
	last   job.State
}

// claim is a job that a process delivered to its worker.
type claim struct {
	h *harness
	c job.Claimed
}

type ownedJob struct {
	owner job.Owner
	id    job.ID
}

func newTwoProcesses(t *testing.T, s *sharedStore, seed uint64) *twoProcesses {
	ctx, stop := context.WithCancel(context.Background())
	r := &twoProcesses{t: t, s: s, ctx: ctx, stop: stop, rng: rand.New(rand.NewPCG(seed, 7)), slots: 3, maxRunning: 4}
	q := queues()
	q[0].MaxRunning, q[0].KeyRunning, q[0].MaxDepth = r.maxRunning, 2, 1000
	var between bus.Bus = &bus.Local{}
	if seed%2 == 1 {
		between = silentBus{}
	}
	for range 2 {
		r.processes = append(r.processes, startWithConfig(t, engine.Config{Store: s, Queues: q, Bus: between}))
	}
	for _, h := range r.processes {
		h.startWorker(r.slots)
	}
	return r
}

// follow watches a job through one of the processes until it ends or is deleted.
func (r *twoProcesses) follow(h *harness, j ownedJob) {
	w, err := h.Watch(context.Background(), j.owner, j.id, 0)
	if err != nil {
		return
	}
	v := &follower{ownedJob: j}
	r.followers = append(r.followers, v)
	go func() {
		defer w.Close()
		for {
			u, err := w.Next(r.ctx)
			if err != nil {
				break
			}
			v.last = u.Job.State
			for _, e := range u.Entries {
				v.gap = v.gap || e.Seq != v.cursor+1
				v.cursor = e.Seq
			}
		}
		v.ended.Store(true)
	}()
}

// checkFollowers fails the test if a follower does not have the current state of its job.
func (r *twoProcesses) checkFollowers() {
	r.t.Helper()
	before := make([]job.Job, len(r.followers))
	for i, v := range r.followers {
		before[i], _ = r.s.Job(r.t.Context(), v.owner, v.id)
	}
	time.Sleep(pollBound)
	synctest.Wait()
	for i, v := range r.followers {
		j, err := r.s.Job(r.t.Context(), v.owner, v.id)
		switch {
		case v.gap:
			r.t.Error("a follower missed an entry")
		case j.Revision != before[i].Revision || v.ended.Load():
		case err != nil:
			r.t.Errorf("a follower of a deleted job still has state %s", v.last)
		case j.State.Ended() || v.last != j.State || v.cursor != j.Cursor:
			r.t.Errorf("a follower has %s at %d, and the job is %s at %d", v.last, v.cursor, j.State, j.Cursor)
		}
	}
	r.stop()
	synctest.Wait()
}

// step makes one random call through one of the processes. The engine may refuse it.
func (r *twoProcesses) step(h *harness) {
	ctx := context.Background()
	switch r.rng.IntN(10) {
	case 0, 1, 2, 3:
		o := job.Owner{Tenant: []string{"", "a", "b"}[r.rng.IntN(3)], User: "u"}
		req := engine.Request{Owner: o, Queue: "sim", Key: []string{"", "k", "l"}[r.rng.IntN(3)], Priority: 4 + r.rng.IntN(3)}
		if r.rng.IntN(4) == 0 {
			req.Delay = time.Duration(r.rng.IntN(5000)) * time.Millisecond
		}
		if snap, _, err := h.Submit(ctx, req); err == nil {
			r.jobs = append(r.jobs, ownedJob{o, snap.ID})
			r.follow(r.processes[r.rng.IntN(2)], ownedJob{o, snap.ID})
		}
	case 4, 5, 6:
		if len(r.claims) > 0 {
			i := r.rng.IntN(len(r.claims))
			x := r.claims[i]
			if r.rng.IntN(3) == 0 {
				r.claims[i].c.Job.Cursor++
				e := job.Entry{Seq: r.claims[i].c.Job.Cursor, Attempt: x.c.Job.Attempt, Kind: job.KindText, Events: 1, Data: []byte("word")}
				_ = h.Append(ctx, x.c.Lease(), []job.Entry{e}, nil)
				return
			}
			r.claims = append(r.claims[:i], r.claims[i+1:]...)
			outcome := []job.Outcome{{}, {Fault: &job.Fault{Code: "x", Message: "x", Class: job.Retryable}}, {Released: true}}[r.rng.IntN(3)]
			_, _ = h.Finish(ctx, x.c.Lease(), outcome) // also through the process that did not deliver it
		}
	case 7:
		_, _ = h.SetPaused(ctx, "sim", r.rng.IntN(2) == 0)
	default:
		if len(r.jobs) == 0 {
			return
		}
		j := r.jobs[r.rng.IntN(len(r.jobs))]
		switch r.rng.IntN(3) {
		case 0:
			_, _ = h.Cancel(ctx, j.owner, j.id)
		case 1:
			_ = h.Delete(ctx, j.owner, j.id)
		default:
			_, _ = h.Retry(ctx, j.owner, j.id)
		}
	}
}

// collectClaims collects the jobs that were delivered to the workers, and drops those with a
// void lease.
func (r *twoProcesses) collectClaims() {
	for _, h := range r.processes {
		for len(h.jobs) > 0 {
			r.claims = append(r.claims, claim{h, <-h.jobs})
		}
		for len(h.orders) > 0 {
			<-h.orders
		}
	}
	// Leases lapse, because no worker renews them.
	leases := make([]job.Lease, 0, len(r.claims))
	for _, x := range r.claims {
		leases = append(leases, x.c.Lease())
	}
	list, err := r.s.Leases(r.t.Context(), leases)
	if err != nil {
		r.t.Fatal(err)
	}
	valid := r.claims[:0]
	for i, x := range r.claims {
		if list[i].Token == x.c.Token {
			valid = append(valid, x)
		}
	}
	r.claims = valid
}

// checkProgress fails the test if a runnable job waits.
func (r *twoProcesses) checkProgress() {
	r.t.Helper()
	counts, err := r.s.Counts(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	c := counts["sim"]
	free := 0
	for _, h := range r.processes {
		free += r.slots
		for _, x := range r.claims {
			if x.h == h {
				free--
			}
		}
	}
	if int(c.Running) > r.maxRunning {
		r.t.Fatalf("%d jobs run, of %d that may", c.Running, r.maxRunning)
	}
	if c.Queued > 0 && !c.Paused && int(c.Running) < r.maxRunning && free > 0 {
		r.t.Fatalf("%d jobs are queued while %d run, of %d that may, and %d slots are free", c.Queued, c.Running, r.maxRunning, free)
	}
	busy, parked := map[string]int{}, map[string]int{}
	for _, o := range r.jobs {
		j, err := r.s.Job(r.t.Context(), o.owner, o.id)
		switch key := fmt.Sprintf("%q of %q", j.Key, o.owner.Tenant); {
		case err != nil:
		case j.State == job.Parked:
			parked[key]++
		case j.State == job.Queued || j.State == job.Running:
			busy[key]++
		}
	}
	for _, x := range r.claims { // including jobs that were deleted while running
		if _, err := r.s.Job(r.t.Context(), x.c.Job.Owner, x.c.Job.ID); job.CodeOf(err) == job.NotFound {
			busy[fmt.Sprintf("%q of %q", x.c.Job.Key, x.c.Job.Owner.Tenant)]++
		}
	}
	for key, n := range parked {
		if busy[key] < 2 {
			r.t.Fatalf("%d jobs of the key %s are parked while %d are queued or run", n, key, busy[key])
		}
	}
}
