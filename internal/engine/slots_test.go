package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// crew is a worker of a few slots that fails the test when it is given more jobs than
// it has slots.
type crew struct {
	*Engine
	t     *testing.T
	slots int
	step  atomic.Pointer[func() faulty.Step] // at which the next commit breaks

	mu   sync.Mutex
	busy map[job.Token]job.Claimed // delivered, and not known to have ended
	most int
}

const unstorable = "unstorable"

func newCrew(t *testing.T, slots int) *crew {
	t.Helper()
	inner := NewTestStore(t, sqlite.Options{Unsynced: true})
	c := &crew{t: t, slots: slots, busy: map[job.Token]job.Claimed{}}
	s := faulty.New(inner, faulty.Plan{
		Commit: func(int, *store.Batch) faulty.Fault {
			if f := c.step.Load(); f != nil {
				return faulty.Fault{Step: (*f)()}
			}
			return faulty.Fault{}
		},
		Bad: func(op any) bool {
			f, ok := op.(*store.Finish)
			return ok && f.Result != nil && string(f.Result.Body) == unstorable
		},
	})
	q := Queue{Name: "q", Concurrency: slots, MaxAttempts: 100, Keep: time.Hour, KeepFailed: time.Hour}
	q.Policy.Timeouts = job.Timeouts{Lease: time.Hour, CancelGrace: time.Hour}
	e, err := New(t.Context(), Config{Store: s, Queues: []Queue{q}})
	if err != nil {
		t.Fatal(err)
	}
	c.Engine = e
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait(); _ = s.Close() })
	c.Consume(job.Worker{Name: "w", Queue: "q", Slots: slots, Deliver: c.deliver, Order: c.order})
	synctest.Wait()
	return c
}

func (c *crew) deliver(j job.Claimed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy[j.Token] = j
	if c.most = max(c.most, len(c.busy)); len(c.busy) > c.slots {
		c.t.Errorf("a worker with %d slots has %d jobs", c.slots, len(c.busy))
	}
}

func (c *crew) order(l job.Lease, o job.Order) {
	if o == job.OrderLost {
		c.ended(l.Token)
	}
}

func (c *crew) ended(t job.Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.busy, t)
}

// jobs are those that the worker has.
func (c *crew) jobs() (all []job.Claimed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.busy {
		all = append(all, j)
	}
	return all
}

// end reports what a job came to. One whose end is refused is the worker's still.
func (c *crew) end(j job.Claimed, o job.Outcome) {
	c.FinishAsync(j.Lease(), o, func(err error) {
		if err == nil || job.CodeOf(err) == job.LeaseLost {
			c.ended(j.Token)
		}
	})
}

func (c *crew) submit() {
	go func() { _, _, _ = c.Submit(context.Background(), Request{Queue: "q"}) }()
}

func (c *crew) free() int {
	q := c.queues["q"]
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.consumers[0].free
}

func succeeded() job.Outcome { return job.Outcome{Result: &job.Result{Body: []byte("fine")}} }

func bad() job.Outcome { return job.Outcome{Result: &job.Result{Body: []byte(unstorable)}} }

// misnumbered is an end whose last words do not follow what was said.
func misnumbered() job.Outcome {
	return job.Outcome{Entries: []job.Entry{{Seq: 99, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte("?")}}}
}

// The slot of an end that is refused is the job's still: nothing else runs in it.
func TestARefusedEndKeepsItsSlot(t *testing.T) {
	t.Parallel()
	for name, refused := range map[string]job.Outcome{"bad data": bad(), "a gap in the output": misnumbered()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCrew(t, 1)
				c.submit()
				synctest.Wait()
				c.submit() // waits for the slot
				synctest.Wait()
				c.end(c.jobs()[0], refused)
				synctest.Wait()
				c.end(c.jobs()[0], succeeded())
				synctest.Wait()
				if got := len(c.jobs()); got != 1 {
					t.Errorf("then the worker has %d jobs, want the second one", got)
				}
			})
		})
	}
}

// Whatever is refused, and whatever becomes of commits, a worker never has more jobs
// than slots; and no slot is lost.
func TestAWorkerNeverHasMoreJobsThanSlots(t *testing.T) {
	t.Parallel()
	for _, seed := range Seeds(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { randomEnds(t, rand.New(rand.NewPCG(seed, 9))) })
		})
	}
}

func randomEnds(t *testing.T, r *rand.Rand) {
	const slots = 3
	c := newCrew(t, slots)
	for range 100 {
		c.breaks(r.Uint64())
		for range r.IntN(4) {
			c.submit()
		}
		for _, j := range c.jobs() {
			switch r.IntN(5) {
			case 0, 1:
				c.end(j, succeeded())
			case 2:
				c.end(j, bad())
			case 3:
				c.end(j, misnumbered())
			}
		}
		time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
		if r.IntN(5) == 0 {
			c.step.Store(nil)
			time.Sleep(2 * time.Second)
		}
	}
	c.step.Store(nil)
	for range 500 { // whatever is left comes to its end
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for _, j := range c.jobs() {
			c.end(j, succeeded())
		}
	}
	synctest.Wait()
	if c.most != slots || len(c.jobs()) > 0 || c.free() != slots {
		t.Errorf("at most %d jobs ran; in the end %d run, and %d of %d slots are free", c.most, len(c.jobs()), c.free(), slots)
	}
}

// breaks makes commits fail at random for a while.
func (c *crew) breaks(seed uint64) {
	r, mu := rand.New(rand.NewPCG(seed, 1)), sync.Mutex{}
	f := func() faulty.Step {
		mu.Lock()
		defer mu.Unlock()
		return []faulty.Step{faulty.None, faulty.None, faulty.None, faulty.BeforeCommit, faulty.LostEither, faulty.DiskFull}[r.IntN(6)]
	}
	c.step.Store(&f)
}
