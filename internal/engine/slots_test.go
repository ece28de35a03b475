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

// slotWorker is a worker that fails the test if it has more jobs than slots.
type slotWorker struct {
	*Engine
	t         *testing.T
	slots     int
	nextFault atomic.Pointer[func() faulty.Step] // returns the step at which the next commit fails

	mu         sync.Mutex
	running    map[job.Token]job.Claimed // delivered and not ended, as far as the worker knows
	maxRunning int
}

const unstorable = "unstorable"

func newSlotWorker(t *testing.T, slots int) *slotWorker {
	t.Helper()
	inner := NewTestStore(t, sqlite.Options{Unsynced: true})
	c := &slotWorker{t: t, slots: slots, running: map[job.Token]job.Claimed{}}
	s := faulty.New(inner, faulty.Plan{
		Commit: func(int, *store.Batch) faulty.Fault {
			if f := c.nextFault.Load(); f != nil {
				return faulty.Fault{Step: (*f)()}
			}
			return faulty.Fault{}
		},
		Bad: func(op any) bool {
			f, ok := op.(*store.Finish)
			return ok && f.Result != nil && string(f.Result.Body) == unstorable
		},
	})
	q := testQueue(slots, 100, job.Timeouts{Lease: time.Hour, CancelGrace: time.Hour})
	e, err := New(t.Context(), Config{Store: s, Queues: []Queue{q}})
	if err != nil {
		t.Fatal(err)
	}
	c.Engine = e
	stop := RunInBackground(c.Run)
	t.Cleanup(func() { stop(); _ = s.Close() })
	c.Consume(job.Worker{Name: "w", Queue: "q", Slots: slots, Deliver: c.deliver, Order: c.handleOrder})
	synctest.Wait()
	return c
}

func (c *slotWorker) deliver(j job.Claimed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[j.Token] = j
	if c.maxRunning = max(c.maxRunning, len(c.running)); len(c.running) > c.slots {
		c.t.Errorf("a worker with %d slots has %d jobs", c.slots, len(c.running))
	}
}

func (c *slotWorker) handleOrder(l job.Lease, o job.Order) {
	if o == job.OrderLost {
		c.forget(l.Token)
	}
}

func (c *slotWorker) forget(t job.Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, t)
}

// jobs returns the jobs that the worker has.
func (c *slotWorker) jobs() (all []job.Claimed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.running {
		all = append(all, j)
	}
	return all
}

// finish finishes a job. If the finish is refused, the worker still has the job.
func (c *slotWorker) finish(j job.Claimed, o job.Outcome) {
	c.FinishAsync(j.Lease(), o, func(err error) {
		if err == nil || job.CodeOf(err) == job.LeaseLost {
			c.forget(j.Token)
		}
	})
}

func (c *slotWorker) submit() {
	go func() { _, _, _ = c.Submit(context.Background(), Request{Queue: "q"}) }()
}

func (c *slotWorker) freeSlots() int {
	q := c.queues["q"]
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.consumers[0].free
}

func succeeded() job.Outcome { return job.Outcome{Result: &job.Result{Body: []byte("fine")}} }

func unstorableResult() job.Outcome {
	return job.Outcome{Result: &job.Result{Body: []byte(unstorable)}}
}

// outputGap is an outcome whose last output leaves a gap in the sequence numbers.
func outputGap() job.Outcome {
	return job.Outcome{Entries: []job.Entry{{Seq: 99, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte("?")}}}
}

// A job whose finish is refused keeps its slot. No other job uses it.
func TestRefusedFinishKeepsSlot(t *testing.T) {
	t.Parallel()
	for name, refused := range map[string]job.Outcome{"bad data": unstorableResult(), "a gap in the output": outputGap()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newSlotWorker(t, 1)
				c.submit()
				synctest.Wait()
				c.submit() // waits for the slot
				synctest.Wait()
				c.finish(c.jobs()[0], refused)
				synctest.Wait()
				c.finish(c.jobs()[0], succeeded())
				synctest.Wait()
				if got := len(c.jobs()); got != 1 {
					t.Errorf("then the worker has %d jobs, want the second one", got)
				}
			})
		})
	}
}

// Finishes are refused and commits fail at random. A worker never has more jobs than slots, and
// no slot is lost.
func TestWorkerNeverExceedsSlots(t *testing.T) {
	t.Parallel()
	for _, seed := range Seeds(t, 12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { finishAtRandom(t, rand.New(rand.NewPCG(seed, 9))) })
		})
	}
}

func finishAtRandom(t *testing.T, r *rand.Rand) {
	const slots = 3
	c := newSlotWorker(t, slots)
	for range 100 {
		c.failCommitsAtRandom(r.Uint64())
		for range r.IntN(4) {
			c.submit()
		}
		for _, j := range c.jobs() {
			switch r.IntN(5) {
			case 0, 1:
				c.finish(j, succeeded())
			case 2:
				c.finish(j, unstorableResult())
			case 3:
				c.finish(j, outputGap())
			}
		}
		time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
		if r.IntN(5) == 0 {
			c.nextFault.Store(nil)
			time.Sleep(2 * time.Second)
		}
	}
	c.nextFault.Store(nil)
	for range 500 { // until all jobs have ended
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for _, j := range c.jobs() {
			c.finish(j, succeeded())
		}
	}
	synctest.Wait()
	if c.maxRunning != slots || len(c.jobs()) > 0 || c.freeSlots() != slots {
		t.Errorf("at most %d jobs ran; in the end %d run, and %d of %d slots are free", c.maxRunning, len(c.jobs()), c.freeSlots(), slots)
	}
}

// failCommitsAtRandom makes commits fail at random from now on.
func (c *slotWorker) failCommitsAtRandom(seed uint64) {
	r, mu := rand.New(rand.NewPCG(seed, 1)), sync.Mutex{}
	f := func() faulty.Step {
		mu.Lock()
		defer mu.Unlock()
		return []faulty.Step{faulty.None, faulty.None, faulty.None, faulty.BeforeCommit, faulty.LostEither, faulty.DiskFull}[r.IntN(6)]
	}
	c.nextFault.Store(&f)
}
