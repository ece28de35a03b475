// Package exectest is what every executor promises, as tests: a rule a method. An
// executor's own tests hold only what is peculiar to it. [Recorder] is a sink for
// any test that runs an executor.
package exectest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Suite is an executor under test and the inputs that show each side of it.
type Suite struct {
	// New makes the executor. What it needs (a server, a file) it makes before, and
	// cleans up with t.Cleanup.
	New func(t *testing.T) exec.Executor
	// Good is an input whose attempt says Says and succeeds, without a wait that a
	// test would notice.
	Good       []byte
	GoodOutput string
	// Failing is an input that passes Check and whose first attempt fails.
	Failing []byte
	// Endless is an input whose attempt speaks at once, and again until it is stopped,
	// for longer than any test lasts.
	Endless []byte
	// Garbage are inputs that no attempt could work on. It may be empty: some
	// executors take any input.
	Invalid [][]byte
}

// Run holds the executor to every rule.
func (s *Suite) Run(t *testing.T) {
	rules := []struct {
		rule string
		hold func(*testing.T, exec.Executor)
	}{
		{"it has a name", s.hasKind},
		{"Check takes what an attempt could work on", s.checkTakes},
		{"Check refuses garbage as invalid, says why, and the same twice", s.checkRefuses},
		{"what it says is said in order, and its result once", s.saysInOrder},
		{"a failed attempt has a fault with a code and a sentence, and no result", s.failsWithFault},
		{"its input is left as it was", s.leavesInput},
		{"attempts at the same time do not meet", s.keepsApart},
		{"it stops when its context ends, whatever the cause", s.stops},
		{"it does not begin when its context has ended already", s.doesNotBegin},
		{"an error from the sink ends the attempt and is what it returns", s.obeysSink},
	}
	for _, r := range rules {
		t.Run(r.rule, func(t *testing.T) {
			e := s.New(t)
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			r.hold(t, e)
		})
	}
}

func (s *Suite) hasKind(t *testing.T, e exec.Executor) {
	if e.Kind() == "" || e.Kind() != s.New(t).Kind() {
		t.Errorf("its kind is %q", e.Kind())
	}
}

func (s *Suite) checkTakes(t *testing.T, e exec.Executor) {
	for _, input := range [][]byte{s.Good, s.Failing, s.Endless} {
		if err := e.Check(input); err != nil {
			t.Errorf("Check(%s): %v", input, err)
		}
	}
}

func (s *Suite) checkRefuses(t *testing.T, e exec.Executor) {
	for _, input := range s.Invalid {
		before := bytes.Clone(input)
		err := e.Check(input)
		var refusal *job.Error
		if !errors.As(err, &refusal) || refusal.Code != job.Invalid || refusal.Message == "" {
			t.Errorf("Check(%s) = %v, want an error with the code %s and a sentence", shown(input), err, job.Invalid)
			continue
		}
		if again := e.Check(input); again == nil || again.Error() != err.Error() {
			t.Errorf("Check(%s) = %v, and then %v", shown(input), err, again)
		}
		if !bytes.Equal(input, before) {
			t.Errorf("Check changed its input: %s", shown(before))
		}
	}
}

func (s *Suite) saysInOrder(t *testing.T, e exec.Executor) {
	a := Start(t, e, Task(s.Good))
	if err := a.Wait(); err != nil {
		t.Fatalf("the attempt failed: %v", err)
	}
	r := a.Sink.Record()
	if r.Text() != s.GoodOutput {
		t.Errorf("it said %q, want %q", r.Text(), s.GoodOutput)
	}
	if len(r.Results) != 1 {
		t.Fatalf("it set %d results, want 1", len(r.Results))
	}
	if r.Results[0].ContentType == "" {
		t.Error("its result has no content type")
	}
}

func (s *Suite) failsWithFault(t *testing.T, e exec.Executor) {
	a := Start(t, e, Task(s.Failing))
	var f *job.Fault
	if err := a.Wait(); !errors.As(err, &f) {
		t.Fatalf("the attempt ended with %v, want a fault", err)
	}
	if f.Code == "" || f.Message == "" {
		t.Errorf("the fault lacks a code or a sentence: %+v", f)
	}
	if n := len(a.Sink.Record().Results); n != 0 {
		t.Errorf("a failed attempt set %d results", n)
	}
}

func (s *Suite) leavesInput(t *testing.T, e exec.Executor) {
	for _, input := range [][]byte{s.Good, s.Failing} {
		task := Task(bytes.Clone(input))
		_ = Start(t, e, task).Wait()
		if !bytes.Equal(task.Input, input) {
			t.Errorf("the input became %s, was %s", shown(task.Input), shown(input))
		}
	}
}

func (s *Suite) keepsApart(t *testing.T, e exec.Executor) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			a := Start(t, e, Task(s.Good))
			if err := a.Wait(); err != nil {
				t.Errorf("an attempt among others failed: %v", err)
			}
			if said := a.Sink.Record().Text(); said != s.GoodOutput {
				t.Errorf("an attempt among others said %q, want %q", said, s.GoodOutput)
			}
		})
	}
	all.Wait()
}

func (s *Suite) stops(t *testing.T, e exec.Executor) {
	for _, cause := range []error{exec.ErrCancelled, exec.ErrTimeout, exec.ErrStopping, exec.ErrLost} {
		a := Start(t, e, Task(s.Endless))
		a.Sink.WaitUntil(HasText)
		a.Stop(cause)
		if err := a.Wait(); err == nil {
			t.Errorf("stopped by %q before it was done, it returned nil", cause)
		}
		if n := len(a.Sink.Record().Results); n != 0 {
			t.Errorf("stopped by %q, it set %d results", cause, n)
		}
	}
}

func (s *Suite) doesNotBegin(t *testing.T, e exec.Executor) {
	a := prepare(t, e, Task(s.Endless))
	a.Stop(exec.ErrCancelled)
	a.begin()
	if err := a.Wait(); err == nil {
		t.Error("an attempt whose context had ended succeeded")
	}
}

func (s *Suite) obeysSink(t *testing.T, e exec.Executor) {
	broken := errors.New("the disk is gone")
	for _, at := range []int{1, 2} {
		a := prepare(t, e, Task(s.Endless))
		a.Sink.FailAt(at, broken)
		a.begin()
		if err := a.Wait(); !errors.Is(err, broken) {
			t.Errorf("the sink refused call %d; the attempt returned %v", at, err)
		}
	}
}

// Task is a first attempt at an input.
func Task(input []byte) exec.Task {
	return exec.Task{Job: job.Job{ID: job.NewID(), Attempt: 1, MaxAttempts: job.DefaultMaxAttempts}, Input: input}
}

// Attempt is one Execute under way.
type Attempt struct {
	Sink *Recorder

	// set once
	t    *testing.T
	run  func(context.Context) error
	ctx  context.Context
	stop context.CancelCauseFunc
	done chan error // holds one; written when Execute has returned
}

// Start begins an attempt. Whoever starts it waits for it.
func Start(t *testing.T, e exec.Executor, task exec.Task) *Attempt {
	a := prepare(t, e, task)
	a.begin()
	return a
}

func prepare(t *testing.T, e exec.Executor, task exec.Task) *Attempt {
	a := &Attempt{Sink: NewRecorder(t), t: t, done: make(chan error, 1)}
	a.ctx, a.stop = context.WithCancelCause(context.Background())
	a.run = func(ctx context.Context) error { return e.Execute(ctx, task, a.Sink) }
	return a
}

func (a *Attempt) begin() {
	go func() {
		err := a.run(a.ctx)
		a.Sink.Close()
		a.done <- err
	}()
}

// Stop ends the attempt's context with the cause.
func (a *Attempt) Stop(cause error) { a.stop(cause) }

// Wait waits for the attempt's end and returns what Execute returned.
func (a *Attempt) Wait() error {
	defer a.stop(nil)
	return <-a.done
}

func shown(input []byte) string {
	const most = 200
	if len(input) > most {
		return string(input[:most]) + "…"
	}
	return string(input)
}
