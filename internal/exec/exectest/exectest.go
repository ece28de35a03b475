// Package exectest tests the promises of every executor, with one method per rule. An executor's
// own tests cover only its own features. [Recorder] is a sink for any test that runs an
// executor.
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

// Suite is an executor under test and the inputs to test it with.
type Suite struct {
	// New makes the executor. It also makes everything that the executor needs, such as a server
	// or a file, and cleans up with t.Cleanup.
	New func(t *testing.T) exec.Executor
	// Good is an input whose attempt succeeds quickly and writes the text GoodOutput.
	Good       []byte
	GoodOutput string
	// Failing is an input that passes Check and whose first attempt fails.
	Failing []byte
	// Endless is an input whose attempt writes text at once, and then repeatedly, for longer
	// than any test lasts.
	Endless []byte
	// An executor that writes no text sets these two. Started waits until an attempt of Endless
	// is under way. Writing is an input whose attempt calls the sink once.
	Started func(*Attempt)
	Writing []byte
	// Quiet is an input whose attempt repeatedly receives signs of life, for longer than any test
	// lasts, but writes no text, event or log. It may be empty, because some executors receive
	// none.
	Quiet []byte
	// Invalid are inputs that Check must refuse. It may be empty, because some executors accept
	// every input.
	Invalid [][]byte
}

// Run tests every rule.
func (s *Suite) Run(t *testing.T) {
	rules := []struct {
		name string
		test func(*testing.T, exec.Executor)
	}{
		{"Kind returns the same name every time", s.hasKind},
		{"Check accepts every input that an attempt can work on", s.checkAcceptsInputs},
		{"Check refuses invalid inputs with a code and a sentence, the same each time", s.checkRefusesInvalid},
		{"output is written in order, and one result is set", s.writesInOrder},
		{"a failed attempt returns a fault with a code and a sentence, and sets no result", s.failsWithFault},
		{"Check and Execute do not change the input", s.keepsInput},
		{"attempts that run at the same time do not affect each other", s.isolatesAttempts},
		{"signs of life that become no output are reported with Alive", s.reportsLife},
		{"Execute stops when its context ends, for any cause", s.stopsWithContext},
		{"Execute does not start when its context has ended already", s.doesNotStart},
		{"a resource has the same name each time, and its limit counts the attempts that are under way", s.limitsResources},
		{"an error from the sink ends the attempt, and Execute returns it", s.returnsSinkError},
	}
	for _, r := range rules {
		// Not parallel, because goleak would detect the goroutines of another rule.
		t.Run(r.name, func(t *testing.T) {
			e := s.New(t)
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			r.test(t, e)
		})
	}
}

func (s *Suite) hasKind(t *testing.T, e exec.Executor) {
	if e.Kind() == "" || e.Kind() != s.New(t).Kind() {
		t.Errorf("the kind is %q", e.Kind())
	}
}

func (s *Suite) checkAcceptsInputs(t *testing.T, e exec.Executor) {
	for _, input := range [][]byte{s.Good, s.Failing, s.Endless} {
		if err := e.Check(input); err != nil {
			t.Errorf("Check(%s): %v", input, err)
		}
	}
}

func (s *Suite) checkRefusesInvalid(t *testing.T, e exec.Executor) {
	for _, input := range s.Invalid {
		before := bytes.Clone(input)
		err := e.Check(input)
		var refusal *job.Error
		if !errors.As(err, &refusal) || refusal.Code != job.Invalid || refusal.Message == "" {
			t.Errorf("Check(%s) = %v, want an error with the code %s and a sentence", truncate(input), err, job.Invalid)
			continue
		}
		if again := e.Check(input); again == nil || again.Error() != err.Error() {
			t.Errorf("Check(%s) = %v, and then %v", truncate(input), err, again)
		}
		if !bytes.Equal(input, before) {
			t.Errorf("Check changed its input: %s", truncate(before))
		}
	}
}

func (s *Suite) writesInOrder(t *testing.T, e exec.Executor) {
	a := Start(t, e, Task(s.Good))
	if err := a.Wait(); err != nil {
		t.Fatalf("the attempt failed: %v", err)
	}
	r := a.Sink.Record()
	if r.Text() != s.GoodOutput {
		t.Errorf("the output is %q, want %q", r.Text(), s.GoodOutput)
	}
	if len(r.Results) != 1 {
		t.Fatalf("Execute set %d results, want 1", len(r.Results))
	}
	if r.Results[0].ContentType == "" {
		t.Error("the result has no content type")
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

func (s *Suite) keepsInput(t *testing.T, e exec.Executor) {
	for _, input := range [][]byte{s.Good, s.Failing} {
		task := Task(bytes.Clone(input))
		_ = Start(t, e, task).Wait()
		if !bytes.Equal(task.Input, input) {
			t.Errorf("the input became %s, was %s", truncate(task.Input), truncate(input))
		}
	}
}

func (s *Suite) isolatesAttempts(t *testing.T, e exec.Executor) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			a := Start(t, e, Task(s.Good))
			if err := a.Wait(); err != nil {
				t.Errorf("a concurrent attempt failed: %v", err)
			}
			if text := a.Sink.Record().Text(); text != s.GoodOutput {
				t.Errorf("the output of a concurrent attempt is %q, want %q", text, s.GoodOutput)
			}
		})
	}
	all.Wait()
}

func (s *Suite) reportsLife(t *testing.T, e exec.Executor) {
	if s.Quiet == nil {
		t.Skip("this executor receives no signs of life besides output")
	}
	a := Start(t, e, Task(s.Quiet))
	a.Sink.WaitUntil(func(r Record) bool { return r.Alive >= 3 })
	a.Stop(exec.ErrCancelled)
	if err := a.Wait(); err == nil {
		t.Error("Execute was stopped before it was done, and returned nil")
	}
	r := a.Sink.Record()
	if r.Alive < 3 {
		t.Errorf("Execute ended after %d signs of life", r.Alive)
	}
	for _, kind := range []job.Kind{job.KindText, job.KindJSON, job.KindLog} {
		if out := r.OfKind(kind); len(out) > 0 {
			t.Errorf("signs of life became output of kind %s: %q", kind, out)
		}
	}
}

func (s *Suite) stopsWithContext(t *testing.T, e exec.Executor) {
	for _, cause := range []error{exec.ErrCancelled, exec.ErrTimeout, exec.ErrStopping, exec.ErrLost} {
		a := Start(t, e, Task(s.Endless))
		s.awaitStart(a)
		a.Stop(cause)
		if err := a.Wait(); err == nil {
			t.Errorf("Execute was stopped by %q before it was done, and returned nil", cause)
		}
		if n := len(a.Sink.Record().Results); n != 0 {
			t.Errorf("stopped by %q, Execute set %d results", cause, n)
		}
	}
}

func (s *Suite) doesNotStart(t *testing.T, e exec.Executor) {
	a := newAttempt(t, e, Task(s.Endless))
	a.Stop(exec.ErrCancelled)
	a.start()
	if err := a.Wait(); err == nil {
		t.Error("an attempt whose context had ended succeeded")
	}
}

// limitsResources holds for executors with resources only.
func (s *Suite) limitsResources(t *testing.T, e exec.Executor) {
	l, ok := e.(exec.Limited)
	if !ok {
		return
	}
	resource := l.Resource(s.Endless)
	if resource == "" || l.Resource(s.Endless) != resource {
		t.Fatalf("the resource of an input is %q", resource)
	}
	for _, input := range s.Invalid {
		_ = l.Resource(input) // must not panic
	}
	if l.Resources() != l.Resources() {
		t.Error("Resources returns another value each time")
	}
	task := Task(s.Endless)
	task.Job.Resource = resource
	a := Start(t, e, task)
	s.awaitStart(a)
	if n, limited := l.Resources().Limits()[resource]; limited && n < 1 {
		t.Errorf("one attempt is under way, and the limit is %d", n)
	}
	a.Stop(exec.ErrCancelled)
	_ = a.Wait()
	if n, limited := l.Resources().Limits()[resource]; limited && n < 1 {
		t.Errorf("no attempt is under way, and the limit is %d", n)
	}
}

func (s *Suite) returnsSinkError(t *testing.T, e exec.Executor) {
	full := errors.New("the disk is full")
	input, calls := s.Endless, []int{1, 2}
	if s.Writing != nil {
		input, calls = s.Writing, []int{1}
	}
	for _, at := range calls {
		a := newAttempt(t, e, Task(input))
		a.Sink.FailAt(at, full)
		a.start()
		if err := a.Wait(); !errors.Is(err, full) {
			t.Errorf("the sink failed at call %d, and Execute returned %v", at, err)
		}
	}
}

// awaitStart waits until an attempt of Endless is under way.
func (s *Suite) awaitStart(a *Attempt) {
	if s.Started != nil {
		s.Started(a)
		return
	}
	a.Sink.WaitUntil(HasText)
}

// Task returns a task for a first attempt.
func Task(input []byte) exec.Task {
	return exec.Task{Job: job.Job{ID: job.NewID(), Attempt: 1, MaxAttempts: job.DefaultMaxAttempts}, Input: input}
}

// Attempt is a running call of Execute.
type Attempt struct {
	Sink *Recorder

	// set once
	t    *testing.T
	run  func(context.Context) error
	ctx  context.Context
	stop context.CancelCauseFunc
	done chan error // receives the error of Execute; has a buffer of one
}

// Start starts an attempt. The caller must call Wait.
func Start(t *testing.T, e exec.Executor, task exec.Task) *Attempt {
	a := newAttempt(t, e, task)
	a.start()
	return a
}

func newAttempt(t *testing.T, e exec.Executor, task exec.Task) *Attempt {
	a := &Attempt{Sink: NewRecorder(t), t: t, done: make(chan error, 1)}
	a.ctx, a.stop = context.WithCancelCause(context.Background())
	a.run = func(ctx context.Context) error { return e.Execute(ctx, task, a.Sink) }
	return a
}

func (a *Attempt) start() {
	go func() {
		err := a.run(a.ctx)
		a.Sink.Close()
		a.done <- err
	}()
}

// Stop ends the attempt's context with the cause.
func (a *Attempt) Stop(cause error) { a.stop(cause) }

// Wait waits until Execute has returned, and returns its error.
func (a *Attempt) Wait() error {
	defer a.stop(nil)
	return <-a.done
}

func truncate(input []byte) string {
	const limit = 200
	if len(input) > limit {
		return string(input[:limit]) + "…"
	}
	return string(input)
}
