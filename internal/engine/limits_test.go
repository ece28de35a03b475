package engine_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// At most KeyRunning jobs of a key run. Its other jobs are parked, jobs of other keys pass them,
// and each end unparks the next job in order.
func TestKeyRunningLimitParksJobs(t *testing.T) {
	t.Parallel()
	h := newLimitedHarness(t, func(q *engine.Queue) { q.KeyRunning = 2 })
	var big []engine.Snapshot
	for range 5 {
		big = append(big, h.submitWithKey("big"))
	}
	small := h.submitWithKey("small")
	claims := h.nextJobs(3)[:2] // the third job, with the key small, keeps running
	if small.State != job.Running || big[1].State != job.Running || big[2].State != job.Parked || big[4].State != job.Parked {
		t.Fatalf("small is %v; of big the second is %v, the third %v, the last %v", small.State, big[1].State, big[2].State, big[4].State)
	}
	h.expectNoMoreJobs()
	for i := range 3 {
		h.finish(claims[0], job.Outcome{})
		claims = append(claims[1:], <-h.jobs)
		if claims[len(claims)-1].Job.ID != big[2+i].ID {
			t.Fatalf("after %d ends another job than the next was delivered", i+1)
		}
	}
}

// The end of a cancelled job unparks the next job of its key.
func TestCancelUnparksNextJob(t *testing.T) {
	t.Parallel()
	h := newLimitedHarness(t, func(q *engine.Queue) { q.KeyRunning = 1 })
	first, second := h.submitWithKey("k"), h.submitWithKey("k")
	c := <-h.jobs
	if _, err := h.Cancel(context.Background(), local, first.ID); err != nil {
		t.Fatal(err)
	}
	h.finish(c, job.Outcome{Cancelled: true})
	if next := <-h.jobs; next.Job.ID != second.ID {
		t.Error("another job was delivered")
	}
}

// A submit is refused with KeyFull if its key has KeyWaiting waiting jobs. Other keys are not
// refused, and a known idempotency key is answered.
func TestKeyWaitingLimitRefusesSubmits(t *testing.T) {
	t.Parallel()
	h := newLimitedHarness(t, func(q *engine.Queue) { q.KeyRunning, q.KeyWaiting = 1, 2 })
	request := engine.Request{Owner: local, Queue: "sim", Key: "k", IdempotencyKey: "first"}
	ask := func(r engine.Request) error {
		_, _, err := h.Submit(context.Background(), r)
		return err
	}
	for range 2 {
		if err := ask(request); err != nil {
			t.Fatal(err)
		}
	}
	other := request
	other.IdempotencyKey = ""
	for i, want := range []job.Code{"", "", job.KeyFull} {
		if got := job.CodeOf(ask(other)); got != want {
			t.Fatalf("submit %d: %q, want %q", i, got, want)
		}
	}
	other.Key = "another"
	if err := ask(other); err != nil {
		t.Error("another key:", err)
	}
	if err := ask(request); err != nil {
		t.Error("a known idempotency key:", err)
	}
}

// At most MaxRunning jobs of a queue run, even if more slots are free.
func TestMaxRunningLimitsQueue(t *testing.T) {
	t.Parallel()
	h := newLimitedHarness(t, func(q *engine.Queue) { q.MaxRunning = 3 })
	for i := range 7 {
		h.submitWithKey(fmt.Sprint(i))
	}
	claims := h.nextJobs(3)
	h.expectNoMoreJobs()
	for range 4 {
		h.finish(claims[0], job.Outcome{})
		claims = append(claims[1:], <-h.jobs)
		h.expectNoMoreJobs()
	}
}

// A paused queue accepts jobs and delivers none, also after a restart. It continues when
// it is resumed.
func TestPausedQueueDeliversNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	h := startHarness(t, openStore(t, path))
	h.startWorker(2)
	ctx := context.Background()
	if v, err := h.SetPaused(ctx, "sim", true); err != nil || !v.Counts.Paused {
		t.Fatalf("%+v, %v", v.Counts, err)
	}
	if s := h.submit(engine.Request{}); s.State != job.Queued {
		t.Fatalf("a job of a paused queue is %v", s.State)
	}
	h.expectNoMoreJobs()
	h.stop()

	h = startHarness(t, openStore(t, path))
	h.startWorker(2)
	h.submit(engine.Request{})
	h.expectNoMoreJobs()
	if v, err := h.SetPaused(ctx, "sim", false); err != nil || v.Counts.Paused {
		t.Fatalf("%+v, %v", v.Counts, err)
	}
	h.nextJobs(2)
	if _, err := h.SetPaused(ctx, "nowhere", true); job.CodeOf(err) != job.UnknownQueue {
		t.Error("a queue that is not there:", err)
	}
}

// If a limit is removed or raised at a restart, parked jobs are queued.
func TestRestartWithoutLimitUnparksJobs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	q := queues()
	q[0].KeyRunning = 1
	h := startWithQueues(t, openStore(t, path), q)
	for range 3 {
		h.submitWithKey("k")
	}
	h.stop()
	h = startHarness(t, openStore(t, path))
	h.startWorker(3)
	h.nextJobs(3)
}

// The retry of a failed job is parked if its key is at its limit.
func TestRetryIsParkedByKeyLimit(t *testing.T) {
	t.Parallel()
	h := newLimitedHarness(t, func(q *engine.Queue) { q.KeyRunning = 1 })
	failed := h.submitWithKey("k")
	h.finish(<-h.jobs, job.Outcome{Fault: &job.Fault{Code: "x", Message: "x"}})
	h.submitWithKey("k")
	c := <-h.jobs
	snap, err := h.Retry(context.Background(), local, failed.ID)
	if err != nil || snap.State != job.Parked {
		t.Fatalf("the retried job is %v, %v", snap.State, err)
	}
	h.finish(c, job.Outcome{})
	if next := <-h.jobs; next.Job.ID != failed.ID || next.Job.Attempt != 1 {
		t.Errorf("%+v was delivered", next.Job)
	}
}

// A delayed job that becomes due is parked like any other.
func TestDueJobIsParkedByKeyLimit(t *testing.T) {
	t.Parallel()
	h := newLimitedHarness(t, func(q *engine.Queue) { q.KeyRunning = 1 })
	h.submitWithKey("k")
	c := <-h.jobs
	late := h.submit(engine.Request{Key: "k", Delay: 10 * time.Millisecond})
	w, err := h.Watch(context.Background(), local, late.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	h.finish(c, job.Outcome{})
	if next := <-h.jobs; next.Job.ID != late.ID {
		t.Error("another job was delivered")
	}
}

// Unusable slots do not add to max_depth. A queue that is paused or at a limit has at most
// max_depth waiting jobs.
func TestMaxDepthIgnoresUnusableSlots(t *testing.T) {
	t.Parallel()
	const slots, depth = 100, 5
	for name, c := range map[string]struct {
		limit  func(q *engine.Queue)
		before func(h *harness)
		runs   int
		delay  time.Duration
	}{
		"free":        {runs: slots},
		"paused":      {before: func(h *harness) { _, _ = h.SetPaused(context.Background(), "sim", true) }},
		"max_running": {limit: func(q *engine.Queue) { q.MaxRunning = 2 }, runs: 2},
		"one key":     {limit: func(q *engine.Queue) { q.KeyRunning = 3 }, runs: 3},
		"delayed":     {delay: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := queues()
			q[0].MaxDepth = depth
			if c.limit != nil {
				c.limit(&q[0])
			}
			h := startWithQueues(t, newStore(t), q)
			h.jobs = make(chan job.Claimed, slots)
			h.startWorker(slots)
			if c.before != nil {
				c.before(h)
			}
			accepted := 0
			for ; accepted < slots+2*depth; accepted++ {
				_, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim", Key: "k", Delay: c.delay})
				if job.CodeOf(err) == job.QueueFull {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if accepted != c.runs+depth {
				t.Errorf("%d jobs were accepted, want %d that run and %d that wait", accepted, c.runs, depth)
			}
		})
	}
}

// A job that starts at once in a free slot does not count as waiting. An idle queue accepts as
// many jobs as it has slots and max_depth together, even if they arrive at the same time.
func TestMaxDepthIgnoresJobsThatRunAtOnce(t *testing.T) {
	t.Parallel()
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	for range rounds {
		h := newLimitedHarness(t, func(q *engine.Queue) { q.MaxDepth = 1 })
		errs := make(chan error)
		for range 9 {
			go func() {
				_, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim"})
				errs <- err
			}()
		}
		for range 9 {
			if err := <-errs; err != nil {
				t.Fatalf("with eight slots and a depth of one, nine jobs were not all accepted: %v", err)
			}
		}
		if _, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim"}); job.CodeOf(err) != job.QueueFull {
			t.Fatalf("a tenth job: %v", err)
		}
		h.stop()
	}
}
