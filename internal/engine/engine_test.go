package engine_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// FinishAsync calls its callback once: when the finish is on disk, or with an error when it can
// no longer be stored.
func TestFinishAsyncReportsOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(2)
	first, second := h.submit(engine.Request{}), h.submit(engine.Request{})
	claimed := map[job.ID]job.Claimed{}
	for range 2 {
		c := <-h.jobs
		claimed[c.Job.ID] = c
	}
	reports := make(chan error, 9)
	end := func(id job.ID) error {
		c := claimed[id]
		h.FinishAsync(c.Lease(), job.Outcome{}, func(err error) { reports <- err })
		return <-reports
	}
	if err := end(first.ID); err != nil {
		t.Fatal(err)
	}
	if snap, err := h.Get(t.Context(), local, first.ID); err != nil || snap.State != job.Succeeded {
		t.Errorf("the finished job is %s, %v", snap.State, err)
	}
	if err := end(first.ID); job.CodeOf(err) != job.LeaseLost {
		t.Errorf("ended once more: %v", err)
	}
	h.stop()
	if err := end(second.ID); job.CodeOf(err) != job.ShuttingDown {
		t.Errorf("ended after the stop: %v", err)
	}
	if len(reports) > 0 {
		t.Errorf("reported once more: %v", <-reports)
	}
}

// A start logs jobs whose queue was removed from the configuration or renamed.
func TestStartLogsJobsOfUnknownQueues(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	h := startHarness(t, openStore(t, path))
	h.submit(engine.Request{Input: []byte(`1`)})
	h.stop()
	for _, tt := range []struct {
		queues []engine.Queue
		want   string
	}{{queues(), ""}, {queues()[1:], "queue=sim jobs=1"}} {
		var log bytes.Buffer
		startWithConfig(t, engine.Config{Store: openStore(t, path), Queues: tt.queues, Log: slog.New(slog.NewTextHandler(&log, nil))}).stop()
		if tt.want == "" && log.Len() > 0 || !strings.Contains(log.String(), tt.want) {
			t.Errorf("%d queues: %q, want %q", len(tt.queues), &log, tt.want)
		}
	}
}

// A submit starts at once if a worker is free, and its result can be read.
func TestSubmitRunsAndEnds(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(1)
	snap := h.submit(engine.Request{Input: []byte(`{"a":1}`)})
	if snap.State != job.Running {
		t.Fatalf("the job is %s; with a free worker it is stored as running", snap.State)
	}
	c := <-h.jobs
	if string(c.Input) != `{"a":1}` || c.Job.Attempt != 1 {
		t.Fatalf("the worker was given attempt %d of %q", c.Job.Attempt, c.Input)
	}
	if state := h.finish(c, job.Outcome{Result: &job.Result{ContentType: "text/plain", Body: []byte("done")}}); state != job.Succeeded {
		t.Fatalf("the job went to %s", state)
	}
	got, err := h.Get(context.Background(), local, snap.ID)
	if err != nil || got.State != job.Succeeded || string(got.Result.Body) != "done" {
		t.Fatalf("read back: %s %v %v", got.State, got.Result, err)
	}
}

// A job waits while all slots are in use. The finish that frees a slot gives it to the
// next job.
func TestFinishGivesSlotToNextJob(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(1)
	first, second := h.submit(engine.Request{}), h.submit(engine.Request{})
	if second.State != job.Queued || second.Position != 0 {
		t.Fatalf("the second job is %s at %d", second.State, second.Position)
	}
	c := <-h.jobs
	if c.Job.ID != first.ID {
		t.Fatal("another job was delivered first")
	}
	h.finish(c, job.Outcome{})
	if next := <-h.jobs; next.Job.ID != second.ID {
		t.Fatal("the freed slot went to another job")
	}
}

// SubmitAndWait returns when the job has ended, with its result.
func TestSubmitAndWait(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(1)
	go func() {
		c := <-h.jobs
		_, _ = h.Finish(context.Background(), c.Lease(), job.Outcome{Result: &job.Result{ContentType: "text/plain", Body: []byte("42")}})
	}()
	snap, _, err := h.SubmitAndWait(context.Background(), engine.Request{Owner: local, Queue: "sim"}, time.Minute)
	if err != nil || snap.State != job.Succeeded || string(snap.Result.Body) != "42" {
		t.Fatalf("%s %v %v", snap.State, snap.Result, err)
	}
}

// A full queue refuses submits, except those with a known idempotency key.
func TestFullQueueRefusesNewKeysOnly(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	known := h.submit(engine.Request{IdempotencyKey: "k", Hash: [32]byte{1}})
	h.submit(engine.Request{})
	h.submit(engine.Request{})
	_, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim"})
	var refused *job.Error
	if !errors.As(err, &refused) || refused.Code != job.QueueFull || refused.RetryAfter == 0 {
		t.Fatalf("a full queue answered %v", err)
	}
	again, existing, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim", IdempotencyKey: "k", Hash: [32]byte{1}})
	if err != nil || !existing || again.ID != known.ID {
		t.Fatalf("a known key at a full queue: %v %v %v", again.ID, existing, err)
	}
}

// After a failed attempt and a backoff comes another attempt, until the maximum is reached.
func TestRetriesThenFails(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(1)
	snap := h.submit(engine.Request{})
	fault := job.Outcome{Fault: &job.Fault{Code: "flaky", Message: "it broke", Class: job.Retryable}}
	if state := h.finish(<-h.jobs, fault); state != job.Scheduled {
		t.Fatalf("after the first attempt the job is %s", state)
	}
	c := <-h.jobs
	if c.Job.Attempt != 2 {
		t.Fatalf("attempt %d follows the first", c.Job.Attempt)
	}
	if state := h.finish(c, fault); state != job.Failed {
		t.Fatalf("after the last attempt the job is %s", state)
	}
	got, _ := h.Get(context.Background(), local, snap.ID)
	if got.Failure == nil || got.Failure.Code != "flaky" || got.Failure.Attempt != 2 {
		t.Fatalf("the failure reads %+v", got.Failure)
	}
}

// A retry without a backoff is ready at once, and is counted as a retry.
func TestRetryWithoutBackoffIsQueuedAtOnce(t *testing.T) {
	t.Parallel()
	h, observer := startObserved(t, filepath.Join(t.TempDir(), "jobs.db"))
	h.startWorker(1)
	h.submit(engine.Request{Policy: &job.Policy{}})
	fault := job.Outcome{Fault: &job.Fault{Code: "flaky", Message: "it broke", Class: job.Retryable}}
	if state := h.finish(<-h.jobs, fault); state == job.Scheduled {
		t.Errorf("after the first attempt the job is %s", state)
	}
	if c := <-h.jobs; c.Job.Attempt != 2 {
		t.Errorf("attempt %d follows the first", c.Job.Attempt)
	}
	h.stop()
	observer.expect(t, map[string]int{"began sim": 2, "ran": 1, "ended sim retried": 1}, "lane")
}

// The cancel of a running job reaches its worker. The job ends as cancelled, even if the worker
// reports another outcome.
func TestCancelReachesTheWorker(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(1)
	snap := h.submit(engine.Request{})
	c := <-h.jobs
	got, err := h.Cancel(context.Background(), local, snap.ID)
	if err != nil || got.State != job.Running || got.CancelRequestedAt.IsZero() {
		t.Fatalf("cancel: %s %v", got.State, err)
	}
	if order := <-h.orders; order != job.OrderCancel {
		t.Fatalf("the worker was ordered %d", order)
	}
	if state := h.finish(c, job.Outcome{}); state != job.Cancelled {
		t.Fatalf("the job ended as %s", state)
	}
}

// A watcher receives every entry once, in order, and then the end.
func TestWatchDeliversEveryEntryOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(1)
	snap := h.submit(engine.Request{})
	c := <-h.jobs
	w, err := h.Watch(context.Background(), local, snap.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	content := make(chan string)
	go func() { content <- readAll(w) }()
	ctx := context.Background()
	for i, piece := range []string{"one ", "two ", "three"} {
		if err := h.Append(ctx, c.Lease(), textEntry(int64(i+1), piece), nil); err != nil {
			t.Fatal(err)
		}
	}
	h.finish(c, job.Outcome{Entries: textEntry(4, "!")})
	if got := <-content; got != "one two three! succeeded" {
		t.Fatalf("the watcher read %q", got)
	}
	late, _ := h.Watch(ctx, local, snap.ID, 2)
	defer late.Close()
	if got := readAll(late); got != "three! succeeded" {
		t.Fatalf("a late watcher read %q", got)
	}
}

// A start reclaims the running jobs of the dead predecessor at once, and counts their attempts.
func TestRestartReclaimsRunningJobs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jobs.db")
		h := startHarness(t, openStore(t, path))
		h.startWorker(1)
		snap := h.submit(engine.Request{Input: []byte("1")})
		old := <-h.jobs
		h.stop() // without a finish, as a crash would
		h = startHarness(t, openStore(t, path))
		h.startWorker(1)
		c := <-h.jobs
		if c.Job.ID != snap.ID || c.Job.Attempt != 2 || string(c.Input) != "1" {
			t.Fatalf("after the restart attempt %d of %s runs", c.Job.Attempt, c.Job.ID)
		}
		if _, err := h.Finish(context.Background(), old.Lease(), job.Outcome{}); job.CodeOf(err) != job.LeaseLost {
			t.Fatalf("the old lease finished the job: %v", err)
		}
	})
}

// Above MaxWatchers the engine refuses watchers, until one has left. Jobs are not affected. One
// owner leaves watchers to others.
func TestWatchersAreBounded(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	e := startWithConfig(t, engine.Config{Store: s, Queues: queues(), MaxWatchers: 4})
	ctx := t.Context()
	snap, _, err := e.Submit(ctx, engine.Request{Owner: local, Queue: "sim"})
	if err != nil {
		t.Fatal(err)
	}
	var all [3]*engine.Watch
	for i := range all {
		if all[i], err = e.Watch(ctx, local, snap.ID, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Watch(ctx, local, snap.ID, 0); job.CodeOf(err) != job.Overloaded {
		t.Errorf("a fourth watcher was answered %v", err)
	}
	if _, err := e.Wait(ctx, local, snap.ID, time.Minute); job.CodeOf(err) != job.Overloaded {
		t.Errorf("a waiting request was answered %v", err)
	}
	bob := job.Owner{User: "bob"}
	bobs, _, err := e.Submit(ctx, engine.Request{Owner: bob, Queue: "sim"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := e.Watch(ctx, bob, bobs.ID, 0)
	if err != nil {
		t.Fatalf("another owner: %v", err)
	}
	other.Close()
	all[0].Close()
	all[0], err = e.Watch(ctx, local, snap.ID, 0)
	if err != nil {
		t.Fatalf("after one has left: %v", err)
	}
	for _, w := range all {
		w.Close()
	}
}

// The text that Get returns ends at the cursor that Get returns. A reader that continues at the
// cursor misses nothing and reads nothing twice.
func TestGetReturnsTextMatchingCursor(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.startWorker(1)
	id := h.submit(engine.Request{}).ID
	c := <-h.jobs
	done := make(chan struct{})
	go func() {
		defer close(done)
		for seq := range int64(300) {
			if err := h.Append(context.Background(), c.Lease(), textEntry(seq+1, "x"), nil); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for appending := true; appending; {
		select {
		case <-done:
			appending = false
		default:
		}
		snap, err := h.Get(context.Background(), local, id)
		if err != nil || int64(len(snap.Text)) != snap.Cursor {
			t.Fatalf("%d characters beside the cursor %d: %v", len(snap.Text), snap.Cursor, err)
		}
	}
}
