package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Never stuck: whatever two processes do with a queue, a job that may run while a slot
// is free runs soon, and a parked job whose key has room follows.
func TestNothingIsStuck(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			beside(t, func(t *testing.T, s *shared) {
				r := newRush(t, s, seed)
				for range 60 {
					for range 1 + r.dice.IntN(4) {
						r.step(r.all[r.dice.IntN(len(r.all))])
					}
					time.Sleep(within)
					synctest.Wait()
					r.take()
					r.check()
				}
				for _, h := range r.all {
					h.stop()
				}
			})
		})
	}
}

// rush is two processes that serve one queue, and what happens to it at random.
type rush struct {
	t     *testing.T
	s     *shared
	dice  *rand.Rand
	all   []*house
	slots int // of each process
	most  int // max_running
	held  []holding
	jobs  []owned
}

// holding is a job that a worker of a process has.
type holding struct {
	h *house
	c job.Claimed
}

type owned struct {
	owner job.Owner
	id    job.ID
}

func newRush(t *testing.T, s *shared, seed uint64) *rush {
	r := &rush{t: t, s: s, dice: rand.New(rand.NewPCG(seed, 7)), slots: 3, most: 4}
	q := queues()
	q[0].MaxRunning, q[0].KeyRunning, q[0].MaxDepth = r.most, 2, 1000
	for range 2 {
		r.all = append(r.all, startWith(t, s, q))
	}
	for _, h := range r.all {
		h.serve(r.slots)
	}
	return r
}

// step does one thing by one of the processes. What is refused is refused.
func (r *rush) step(h *house) {
	ctx := context.Background()
	switch r.dice.IntN(10) {
	case 0, 1, 2, 3:
		o := job.Owner{Tenant: []string{"", "a", "b"}[r.dice.IntN(3)], User: "u"}
		req := engine.Request{Owner: o, Queue: "sim", Key: []string{"", "k", "l"}[r.dice.IntN(3)], Priority: 4 + r.dice.IntN(3)}
		if r.dice.IntN(4) == 0 {
			req.Delay = time.Duration(r.dice.IntN(5000)) * time.Millisecond
		}
		if snap, _, err := h.Submit(ctx, req); err == nil {
			r.jobs = append(r.jobs, owned{o, snap.ID})
		}
	case 4, 5, 6:
		if len(r.held) > 0 {
			i := r.dice.IntN(len(r.held))
			x := r.held[i]
			r.held = append(r.held[:i], r.held[i+1:]...)
			outcome := []job.Outcome{{}, {Fault: &job.Fault{Code: "x", Message: "x", Class: job.Later}}, {HandedBack: true}}[r.dice.IntN(3)]
			_, _ = x.h.Finish(ctx, x.c.Lease(), outcome)
		}
	case 7:
		_, _ = h.SetPaused(ctx, "sim", r.dice.IntN(2) == 0)
	default:
		if len(r.jobs) == 0 {
			return
		}
		j := r.jobs[r.dice.IntN(len(r.jobs))]
		switch r.dice.IntN(3) {
		case 0:
			_, _ = h.Cancel(ctx, j.owner, j.id)
		case 1:
			_ = h.Delete(ctx, j.owner, j.id)
		default:
			_, _ = h.Retry(ctx, j.owner, j.id)
		}
	}
}

// take notes which jobs the workers have been given.
func (r *rush) take() {
	for _, h := range r.all {
		for len(h.jobs) > 0 {
			r.held = append(r.held, holding{h, <-h.jobs})
		}
	}
}

// check fails when a job waits that may run.
func (r *rush) check() {
	r.t.Helper()
	counts, err := r.s.Counts(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	c := counts["sim"]
	free := 0
	for _, h := range r.all {
		free += r.slots
		for _, x := range r.held {
			if x.h == h {
				free--
			}
		}
	}
	if int(c.Running) > r.most {
		r.t.Fatalf("%d jobs run, of %d that may", c.Running, r.most)
	}
	if c.Queued > 0 && !c.Paused && int(c.Running) < r.most && free > 0 {
		r.t.Fatalf("%d jobs are queued while %d run, of %d that may, and %d slots are free", c.Queued, c.Running, r.most, free)
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
	for _, x := range r.held { // also those that were deleted while they run
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
