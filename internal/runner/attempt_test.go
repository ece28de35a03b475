package runner

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestAttempt(t *testing.T) {
	runRules(t, []rule{
		{"an attempt that returns nil succeeds with the last result it set", succeeds},
		{"an attempt without a result can succeed", succeedsWithoutResult},
		{"a fault is stored as the executor returned it, with the usage and without the result", reportsFault},
		{"any other error is a fault to retry later", reportsError},
		{"a job whose resource has no room is released", releasesWithoutRoom},
		{"work that finishes after it was asked to stop has succeeded", succeedsWhenStopped},
		{"work that finishes after its job was cancelled is cancelled", cancelsDoneWork},
		{"work whose output was rejected has not succeeded", failsWhenOutputIsRejected},
		{"a panic is a fault of the attempt, is logged, and harms no other attempt", reportsPanic},
		{"an executor that ends its goroutine fails the attempt", reportsGoexit},
		{"a result past its limit is a final fault", refusesLargeResult},
		{"the executor is given the job, the attempt and the input", givesTask},
		{"the context ends with the attempt", endsContext},
		{"output after the return is refused", refusesLateOutput},
		{"twenty attempts run at once and each has its own outcome", runsManyAtOnce},
	})
}

func succeeds(t *testing.T) {
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		out.Result(job.Result{ContentType: "text/plain", Body: []byte("first")})
		out.Result(job.Result{ContentType: "text/plain", Body: []byte("second")})
		return nil
	})
	rec := h.deliver(1)
	synctest.Wait()
	o := h.outcome(rec)
	want(t, "the result", string(o.Result.Body), "second")
	want(t, "the content type", o.Result.ContentType, "text/plain")
	want(t, "the number of entries", len(rec.snapshot().entries), 0)
	want(t, "failed, cancelled or released", o.Fault != nil || o.Cancelled || o.Released, false)
}

func releasesWithoutRoom(t *testing.T) {
	h := newHarness(t, func(context.Context, exec.Task, exec.Sink) error { return exec.ErrNoRoom })
	rec := h.deliver(1)
	synctest.Wait()
	o := h.outcome(rec)
	want(t, "released", o.Released, true)
	want(t, "a fault", o.Fault != nil, false)
}

func succeedsWithoutResult(t *testing.T) {
	h := newHarness(t, func(context.Context, exec.Task, exec.Sink) error { return nil })
	rec := h.deliver(1)
	synctest.Wait()
	o := h.outcome(rec)
	want(t, "a result", o.Result != nil, false)
	want(t, "a fault", o.Fault != nil, false)
}

func reportsFault(t *testing.T) {
	fault := &job.Fault{Code: "upstream_busy", Message: "The model is busy.", Class: job.Wait, RetryAfter: time.Minute}
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		usage := []byte(`{"tokens":3}`)
		out.Usage(usage)
		usage[2] = 'X'
		out.Result(job.Result{Body: []byte("half")})
		return errors.Join(errors.New("while asking"), fault)
	})
	rec := h.deliver(1)
	synctest.Wait()
	o := h.outcome(rec)
	want(t, "the fault", o.Fault, fault)
	want(t, "the usage", string(o.Usage), `{"tokens":3}`)
	want(t, "a result", o.Result != nil, false)
}

func reportsError(t *testing.T) {
	h := newHarness(t, func(context.Context, exec.Task, exec.Sink) error { return errors.New("a disk is full") })
	rec := h.deliver(1)
	synctest.Wait()
	h.wantFault(rec, job.Retryable, "executor_error")
}

// finishAfterStop returns an executor that finishes its work once it is asked to stop.
func finishAfterStop(words ...string) executorFunc {
	return func(ctx context.Context, _ exec.Task, out exec.Sink) error {
		<-ctx.Done()
		sleep(time.Second)
		for _, w := range words {
			_ = out.Text(w)
		}
		_ = out.Progress(job.Progress{Percent: 50})
		out.Result(job.Result{Body: []byte("done")})
		return nil
	}
}

var stopWays = map[string]func(h *harness){
	"shutdown": func(h *harness) { h.stop() },
	"lapse":    func(h *harness) { h.setRenew(func([]job.Lease) []error { return []error{errOutage} }) },
	"timeout":  func(*harness) {},
}

// outcomeWhenStopped runs an attempt, stops it, and returns its outcome.
func outcomeWhenStopped(t *testing.T, s executorFunc, how string) job.Outcome {
	h := newHarness(t, s, func(c *Config) { c.Grace = time.Second })
	limits := job.Timeouts{}
	if how == "timeout" {
		limits = job.Timeouts{RunSoft: 10 * time.Second, RunHard: 20 * time.Second}
	}
	rec := h.deliver(1, withTimeouts(limits))
	synctest.Wait()
	stopWays[how](h)
	advance(29 * time.Second)
	return h.outcome(rec)
}

func succeedsWhenStopped(t *testing.T) {
	for how := range stopWays {
		o := outcomeWhenStopped(t, finishAfterStop(), how)
		if o.Result == nil || string(o.Result.Body) != "done" || o.Released || o.Fault != nil {
			t.Errorf("asked to stop by a %s, the finished work has the outcome %+v", how, o)
		}
	}
}

func cancelsDoneWork(t *testing.T) {
	h := newHarness(t, finishAfterStop())
	rec := h.deliver(1)
	synctest.Wait()
	h.order(1, job.OrderCancel)
	advance(2 * time.Second)
	want(t, "cancelled", h.outcome(rec).Cancelled, true)
}

func failsWhenOutputIsRejected(t *testing.T) {
	for how := range stopWays {
		if o := outcomeWhenStopped(t, finishAfterStop("the last piece"), how); o.Result != nil || !o.Released && o.Fault == nil {
			t.Errorf("asked to stop by a %s, work without its last piece has the outcome %+v", how, o)
		}
	}
}

func reportsPanic(t *testing.T) {
	var log bytes.Buffer
	h := newHarness(t, func(_ context.Context, task exec.Task, out exec.Sink) error {
		if task.Job.ID == (job.ID{15: 1}) {
			panic("index out of range")
		}
		return nil
	}, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	bad, good := h.deliver(1), h.deliver(2)
	synctest.Wait()
	h.wantFault(bad, job.Retryable, "panic")
	want(t, "a fault of the other", h.outcome(good).Fault != nil, false)
	if text := log.String(); !strings.Contains(text, "index out of range") || !strings.Contains(text, "attempt_test.go") {
		t.Fatalf("the log lacks the panic or its stack: %s", text)
	}
	if m := h.outcome(bad).Fault.Message; strings.Contains(m, "index out of range") {
		t.Fatalf("the caller is shown the panic: %s", m)
	}
}

// FailNow of a test ends the goroutine in this way.
func reportsGoexit(t *testing.T) {
	h := newHarness(t, func(context.Context, exec.Task, exec.Sink) error {
		runtime.Goexit()
		return nil
	})
	rec := h.deliver(1)
	synctest.Wait()
	h.wantFault(rec, job.Retryable, "panic")
}

func refusesLargeResult(t *testing.T) {
	var after error
	h := newHarness(t, func(ctx context.Context, _ exec.Task, out exec.Sink) error {
		out.Result(job.Result{Body: make([]byte, job.MaxResult)})
		out.Result(job.Result{Body: make([]byte, job.MaxResult+1)})
		<-ctx.Done()
		after = out.Text("more")
		return nil
	})
	rec := h.deliver(1)
	synctest.Wait()
	h.wantFault(rec, job.Final, "result_too_large")
	want(t, "a result", h.outcome(rec).Result != nil, false)
	want(t, "an error for later output", after != nil, true)
}

func givesTask(t *testing.T) {
	var got exec.Task
	h := newHarness(t, func(_ context.Context, task exec.Task, _ exec.Sink) error {
		got = task
		return nil
	})
	h.deliver(7, func(c *job.Claimed) { c.Input, c.Job.Attempt = []byte("work"), 3 })
	synctest.Wait()
	want(t, "the job", got.Job.ID, job.ID{15: 7})
	want(t, "the attempt", got.Job.Attempt, 3)
	want(t, "the input", string(got.Input), "work")
	want(t, "the files", len(got.Files), 0)
}

func endsContext(t *testing.T) {
	var kept context.Context
	h := newHarness(t, func(ctx context.Context, _ exec.Task, _ exec.Sink) error {
		kept = ctx
		return ctx.Err()
	})
	rec := h.deliver(1)
	synctest.Wait()
	want(t, "a fault", h.outcome(rec).Fault != nil, false)
	wantErr(t, kept.Err(), context.Canceled)
}

func refusesLateOutput(t *testing.T) {
	var kept exec.Sink
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		kept = out
		return out.Text("in time")
	})
	rec := h.deliver(1)
	synctest.Wait()
	for _, err := range []error{kept.Text("late"), kept.Event([]byte("1")), kept.Log("late"), kept.Progress(job.Progress{Percent: 1})} {
		wantErr(t, err, errAttemptOver)
	}
	kept.ResetTimeouts()
	kept.Alive()
	kept.Result(job.Result{})
	kept.Usage([]byte("1"))
	advance(time.Minute)
	want(t, "the log", rec.log(), "text in time")
}

func runsManyAtOnce(t *testing.T) {
	gate := make(chan struct{})
	h := newHarness(t, func(_ context.Context, task exec.Task, out exec.Sink) error {
		<-gate
		out.Result(job.Result{Body: task.Job.ID[:]})
		return nil
	})
	var recs []*record
	for n := range byte(20) {
		recs = append(recs, h.deliver(n))
	}
	synctest.Wait()
	for _, rec := range recs {
		want(t, "still running", rec.running(), true)
	}
	close(gate)
	synctest.Wait()
	for n, rec := range recs {
		want(t, "whose result", h.outcome(rec).Result.Body[15], byte(n))
	}
}
