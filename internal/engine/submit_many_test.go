package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// numberedRequests returns n requests to one queue, numbered by their input.
func numberedRequests(queue string, n int) []engine.Request {
	list := make([]engine.Request, n)
	for i := range list {
		list[i] = engine.Request{Owner: local, Queue: queue, Input: fmt.Appendf(nil, "%d", i)}
	}
	return list
}

// errorCodes returns the error codes in order, "" for each accepted request.
func errorCodes(out []engine.SubmitResult) []job.Code {
	list := make([]job.Code, len(out))
	for i := range out {
		list[i] = job.CodeOf(out[i].Err)
	}
	return list
}

// Each request of a batch has its own answer. An invalid request, or one that does not fit, does
// not affect the others.
func TestSubmitManyAnswersEachRequest(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	list := numberedRequests("sim", 5) // the depth of sim is 3
	list[1].Queue = "nowhere"
	out := h.submitMany(list, false)
	want := []job.Code{"", job.UnknownQueue, "", "", job.QueueFull}
	if got := errorCodes(out); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%v, want %v", got, want)
	}
	for i, position := range map[int]int{0: 0, 2: 1, 3: 2} {
		if out[i].State != job.Queued || out[i].Position != position {
			t.Errorf("job %d is %v at position %d, want %d", i, out[i].State, out[i].Position, position)
		}
	}
}

// If one request of an atomic batch is refused, none is stored, and the reserved capacity is
// free again.
func TestAtomicBatchIsAllOrNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for range 3 {
		if got := errorCodes(h.submitMany(numberedRequests("sim", 4), true)); fmt.Sprint(got) != fmt.Sprint([]job.Code{job.BatchRefused, job.BatchRefused, job.BatchRefused, job.QueueFull}) {
			t.Fatalf("%v", got)
		}
	}
	if page, _, _ := h.List(context.Background(), job.Filter{Owner: local, Limit: 10}); len(page) != 0 {
		t.Fatalf("%d jobs were stored", len(page))
	}
	for _, s := range h.submitMany(numberedRequests("sim", 3), true) {
		if s.Err != nil {
			t.Error(s.Err)
		}
	}
}

// A batch of MaxBatch jobs is larger than the share of a lane, and is stored in one
// commit.
func TestSubmitManyStoresLargestBatch(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	out := h.submitMany(numberedRequests("wide", job.MaxBatch), true)
	for i := range out {
		if out[i].Err != nil {
			t.Fatal(i, out[i].Err)
		}
	}
}

// A repeated batch returns the same jobs, even when the queue is full.
func TestSubmitManyIsIdempotent(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	list := numberedRequests("sim", 3)
	for i := range list {
		list[i].IdempotencyKey = fmt.Sprint("key/", i)
	}
	first, again := h.submitMany(list, false), h.submitMany(list, false)
	for i := range first {
		if again[i].Err != nil || !again[i].Existing || again[i].ID != first[i].ID {
			t.Errorf("%d: %v, %v, %v instead of %v", i, again[i].Err, again[i].Existing, again[i].ID, first[i].ID)
		}
	}
}

// One batch has jobs that start at once and jobs that wait.
func TestSubmitManyStartsFreeWorkers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(2)
	out := h.submitMany(numberedRequests("sim", 3), false)
	if out[0].State != job.Running || out[1].State != job.Running || out[2].State != job.Queued {
		t.Fatalf("%v, %v, %v", out[0].State, out[1].State, out[2].State)
	}
	for range out {
		c := <-h.jobs
		h.finish(c, job.Outcome{})
	}
}

// ChangeMany changes the jobs that match the filter and no others. It does not count jobs
// that need no change.
func TestChangeManyAppliesFilter(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.submitMany(numberedRequests("wide", 250), false)
	other := numberedRequests("sim", 1)
	h.submitMany(other, false)
	ctx := context.Background()
	for _, step := range []struct {
		verb   engine.Verb
		filter job.Filter
		want   int
	}{
		{engine.RetryAll, job.Filter{Owner: local, Queue: "wide"}, 0},
		{engine.CancelAll, job.Filter{Owner: job.Owner{User: "other"}}, 0},
		{engine.CancelAll, job.Filter{Owner: local, Queue: "wide"}, 250},
		{engine.CancelAll, job.Filter{Owner: local, Queue: "wide"}, 0},
		{engine.RetryAll, job.Filter{Owner: local, Status: job.Cancelled}, 250},
		{engine.DeleteAll, job.Filter{Owner: local, Queue: "wide"}, 250},
		{engine.DeleteAll, job.Filter{Owner: local}, 1},
	} {
		if n, err := h.ChangeMany(ctx, step.verb, step.filter); n != step.want || err != nil {
			t.Fatalf("verb %d of %+v: %d, %v; want %d", step.verb, step.filter, n, err, step.want)
		}
	}
}

// The waiting jobs of a queue have at most MaxBytes. A single larger job is accepted while no
// other job waits.
func TestMaxBytesLimitsQueue(t *testing.T) {
	t.Parallel()
	q := queues()
	q[0].MaxBytes, q[0].MaxDepth = 1000, 100
	h := startWithQueues(t, openStore(t, t.TempDir()+"/jobs.db"), q)
	submit := func(size int) error {
		_, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim", Input: make([]byte, size)})
		return err
	}
	if err := submit(2000); err != nil {
		t.Fatal("into an empty queue:", err)
	}
	if err := submit(1); job.CodeOf(err) != job.QueueFull {
		t.Fatal("into a full one:", err)
	}
	var refusal *job.Error
	if err := h.CheckCapacity("sim", 1); !errors.As(err, &refusal) || refusal.RetryAfter <= 0 {
		t.Errorf("CheckCapacity: %v", err)
	}
	h.startWorker(1)
	<-h.jobs // the job runs now
	if err := submit(400); err != nil {
		t.Error(err)
	}
	if err := submit(601); job.CodeOf(err) != job.QueueFull {
		t.Error("past the bound:", err)
	}
	if err := submit(600); err != nil {
		t.Error("up to the bound:", err)
	}
}
