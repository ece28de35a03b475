package meanwhile_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile"
	"github.com/meanwhile-run/meanwhile/client"
	"github.com/meanwhile-run/meanwhile/meanwhiletest"
)

// Every way to read a result returns the same errors and values.
func TestJobsReadResultsWithTheirTypes(t *testing.T) {
	t.Parallel()
	s := meanwhiletest.New(t)
	large := strings.Repeat("x", 100<<10) // more than a job carries
	words := meanwhile.Handle(s, "words", func(_ context.Context, _ *meanwhile.Task, n int) (*string, error) {
		switch n {
		case 0:
			return nil, nil
		case 1:
			return &large, nil
		}
		return nil, meanwhile.Final(meanwhile.WithCode(errors.New("there are no more"), "no_words"))
	})
	raw := meanwhile.Handle(s, "raw", func(_ context.Context, _ *meanwhile.Task, _ int) (meanwhile.Result, error) {
		return meanwhile.Result{ContentType: "image/png", Body: []byte("png")}, nil
	})
	ctx := t.Context()
	if r, err := words.SubmitAndWait(ctx, 0); err != nil || r != nil {
		t.Errorf("no value: %v, %v", r, err)
	}
	if r, err := words.SubmitAndWait(ctx, 1); err != nil || *r != large {
		t.Errorf("a large value: %v", err)
	}
	if r, err := raw.SubmitAndWait(ctx, 1); err != nil || r.ContentType != "image/png" || string(r.Body) != "png" {
		t.Errorf("a raw result: %+v, %v", r, err)
	}
	job, err := words.Submit(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func(context.Context, string) (*string, error){"Wait": words.Wait, "Result": words.Result} {
		if name == "Result" {
			meanwhiletest.RunUntilIdle(t, s)
		}
		_, err := read(ctx, job.ID)
		var failed *meanwhile.JobError
		if !errors.As(err, &failed) || failed.Code() != "no_words" || failed.Job.ID != job.ID {
			t.Errorf("%s of a failed job: %v", name, err)
		}
		if want := fmt.Sprintf(`meanwhile: %s of the queue "words" failed in attempt 1: no_words: there are no more`, job.ID); err.Error() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := raw.Wait(ctx, job.ID); err == nil || !strings.Contains(err.Error(), `of the queue "words"`) {
		t.Errorf("the job of another queue: %v", err)
	}
	if _, err := words.Result(ctx, "job_00000000000000000000000000"); client.CodeOf(err) != client.CodeNotFound {
		t.Errorf("an unknown job: %v", err)
	}
}

func TestResultDoesNotWait(t *testing.T) {
	t.Parallel()
	s := meanwhiletest.New(t)
	jobs := meanwhile.Handle(s, "echo", echo)
	job, err := jobs.Submit(t.Context(), "x", meanwhile.Delay(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jobs.Result(t.Context(), job.ID); client.CodeOf(err) != client.CodeNotFinished {
		t.Errorf("a job that waits: %v", err)
	}
	if _, err := s.Cancel(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	_, err = jobs.Result(t.Context(), job.ID)
	var ended *meanwhile.JobError
	if !errors.As(err, &ended) || ended.Code() != "cancelled" || !strings.HasSuffix(err.Error(), "was cancelled") {
		t.Errorf("a cancelled job: %v", err)
	}
}

func TestSubmitOptionsSetTheSubmission(t *testing.T) {
	t.Parallel()
	at := time.Now()
	jobs := meanwhile.JobsOf[string, string](nil, "echo", "loud")
	got := jobs.Submission("x",
		meanwhile.Key("k"), meanwhile.Priority(2), meanwhile.Delay(1), meanwhile.RunAt(at), meanwhile.Metadata("a", "b"),
		meanwhile.AbandonAfter(2), meanwhile.IdempotencyKey("once"), meanwhile.MaxAttempts(3), meanwhile.Backoff(4, 5),
		meanwhile.RetryFor(6), meanwhile.RunTimeout(7), meanwhile.QueueTimeout(8))
	want := meanwhile.Submission{
		Queue: "echo", Input: "x", Key: "k", Priority: 2, Delay: 1, RunAt: at, AbandonAfter: 2, IdempotencyKey: "once", MaxAttempts: 3,
		Metadata: map[string]string{"a": "b", "kind": "loud"},
		Retry:    meanwhile.RetryPolicy{Backoff: 4, BackoffMax: 5, For: 6},
		Timeouts: meanwhile.Timeouts{RunSoft: 7, RunHard: 7 + 10*time.Second, Queue: 8},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestSubmitManyStoresAllOrNone(t *testing.T) {
	t.Parallel()
	s := meanwhiletest.New(t)
	jobs := meanwhile.Handle(s, "pictures", func(_ context.Context, _ *meanwhile.Task, p Picture) (int, error) { return p.ID, nil })
	if _, err := s.Pause(t.Context(), "pictures"); err != nil {
		t.Fatal(err)
	}
	var refused *meanwhile.Error
	if _, err := jobs.SubmitMany(t.Context(), []Picture{{ID: 1}, {}}); !errors.As(err, &refused) || len(refused.Errors) != 1 || refused.Errors[0].Field != "/jobs/1/input" {
		t.Errorf("with an invalid input: %+v", refused)
	}
	once := meanwhile.IdempotencyKey("album")
	first, err := jobs.SubmitMany(t.Context(), []Picture{{ID: 1}, {ID: 2}}, once)
	if err != nil {
		t.Fatal(err)
	}
	again, err := jobs.SubmitMany(t.Context(), []Picture{{ID: 1}, {ID: 2}}, once)
	if err != nil || again[0].ID != first[0].ID || again[1].ID != first[1].ID {
		t.Errorf("again: %v", err)
	}
	if none, err := jobs.SubmitMany(t.Context(), nil); none != nil || err != nil {
		t.Errorf("no inputs: %v, %v", none, err)
	}
	q, err := s.Queue(t.Context(), "pictures")
	if err != nil || q.Counts.Unfinished() != 2 {
		t.Errorf("the queue has %+v, %v", q, err)
	}
}

// A kind is visible to every client and is checked for each.
func TestKindsShareAQueue(t *testing.T) {
	t.Parallel()
	s := meanwhiletest.New(t)
	q := s.AddQueue("images", meanwhile.Concurrency(1))
	running := make(chan string, 2)
	release := make(chan struct{})
	hold := func(_ context.Context, t *meanwhile.Task, _ int) (string, error) {
		running <- t.Kind
		<-release
		return t.Kind, nil
	}
	crop, scale := meanwhile.HandleKind(q, "crop", hold), meanwhile.HandleKind(q, "scale", hold)
	ctx := t.Context()
	one, err := crop.Submit(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	two, err := scale.Submit(ctx, 1, meanwhile.Metadata("kind", "crop"), meanwhile.Metadata("page", "3"))
	if err != nil {
		t.Fatal(err)
	}
	if kind := <-running; kind != "crop" || two.Metadata["kind"] != "scale" || two.Metadata["page"] != "3" {
		t.Errorf("%s runs first; the other is %v", kind, two.Metadata)
	}
	if j, err := s.Get(ctx, two.ID); err != nil || j.Status != meanwhile.Queued {
		t.Errorf("beside a running job of another kind it is %v, %v", j, err)
	}
	close(release)
	if kind, err := scale.Wait(ctx, two.ID); kind != "scale" || err != nil {
		t.Errorf("%s, %v", kind, err)
	}
	page, err := s.Page(ctx, client.ListOptions{Filter: client.Filter{Metadata: map[string]string{meanwhile.KindMetadata: "crop"}}})
	if err != nil || len(page.Jobs) != 1 || page.Jobs[0].ID != one.ID {
		t.Errorf("the jobs of a kind are %+v, %v", page, err)
	}
	if _, err := crop.Result(ctx, two.ID); err == nil || !strings.Contains(err.Error(), `the kind "scale"`) {
		t.Errorf("the result of another kind: %v", err)
	}
	for _, c := range []struct {
		metadata map[string]string
		input    any
		code     string
		field    string
	}{
		{nil, 1, client.CodeUnknownKind, "/metadata/kind"},
		{map[string]string{"kind": "corp"}, 1, client.CodeUnknownKind, "/metadata/kind"},
		{map[string]string{"kind": "crop"}, "x", client.CodeInvalid, "/input"},
	} {
		_, err := s.Submit(ctx, meanwhile.Submission{Queue: "images", Input: c.input, Metadata: c.metadata})
		var refusal *meanwhile.Error
		if !errors.As(err, &refusal) || refusal.Status != 400 || refusal.Code != c.code || refusal.Field != c.field {
			t.Errorf("%v: %+v", c.metadata, err)
		}
		many, err2 := s.SubmitBatch(ctx, client.Batch{Jobs: []meanwhile.Submission{{Queue: "images", Input: c.input, Metadata: c.metadata}}})
		if err2 != nil || many[0].Err == nil || many[0].Err.Code != c.code || many[0].Err.Field != "/jobs/0"+c.field {
			t.Errorf("in a batch: %+v, %v", many, err2)
		}
		if c.code == client.CodeUnknownKind && !strings.Contains(err.Error(), "crop, scale") {
			t.Errorf("it does not name the kinds: %v", err)
		}
	}
}

// A kind may differ from its queue, and a job from its kind, by every way of submitting it.
func TestKindOptionsHoldForTheKind(t *testing.T) {
	t.Parallel()
	s := meanwhiletest.New(t)
	q := s.AddQueue("images", meanwhile.MaxAttempts(3), meanwhile.QueueTimeout(time.Hour))
	crop := meanwhile.HandleKind(q, "crop", failing)
	scale := meanwhile.HandleKind(q, "scale", failing, meanwhile.MaxAttempts(2))
	wait := meanwhile.HandleKind(q, "wait", waiting, meanwhile.RunTimeout(time.Millisecond))
	for _, c := range []struct {
		jobs     *meanwhile.Jobs[Picture, Thumbnail]
		options  []meanwhile.SubmitOption
		code     string
		attempts int
	}{
		{crop, nil, "executor_error", 3},
		{scale, nil, "executor_error", 2},
		{scale, []meanwhile.SubmitOption{meanwhile.MaxAttempts(1)}, "executor_error", 1},
		{wait, nil, "timeout", 1},
		{wait, []meanwhile.SubmitOption{meanwhile.QueueTimeout(time.Minute)}, "timeout", 1}, // keeps the kind's other clocks
	} {
		_, err := c.jobs.SubmitAndWait(t.Context(), Picture{ID: 7}, c.options...)
		var failed *meanwhile.JobError
		if !errors.As(err, &failed) || failed.Code() != c.code || failed.Job.Attempt != c.attempts {
			t.Errorf("want %s after %d attempts: %v", c.code, c.attempts, err)
		}
	}
}

func TestQueueNeedsKindsBeforeRun(t *testing.T) {
	t.Parallel()
	var text strings.Builder // written by Run only
	s := openServer(t, meanwhile.Config{Logger: slog.New(slog.NewTextHandler(&text, nil))})
	s.AddQueue("images")
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), `"images" has no kinds`) {
		t.Errorf("%v", err)
	}
	if _, err := s.Queues(t.Context()); client.CodeOf(err) != "stopped" || !strings.Contains(err.Error(), `"images" has no kinds`) {
		t.Errorf("a call after the failed Run: %v", err)
	}
	if !strings.Contains(text.String(), "has no kinds") {
		t.Errorf("the log is %s", text.String())
	}
}

// Middleware of the server is outermost, that of a kind innermost. It sees the task, may pass
// a context and decides the outcome.
func TestMiddlewareWrapsInOrder(t *testing.T) {
	t.Parallel()
	type key struct{}
	var calls []string // one attempt at a time
	wrap := func(name string) meanwhile.Middleware {
		return func(next meanwhile.Work) meanwhile.Work {
			return func(ctx context.Context, t *meanwhile.Task) error {
				calls = append(calls, fmt.Sprintf("%s %s %s %s", name, t.Kind, t.Input, t.JobID[:4]))
				err := next(context.WithValue(ctx, key{}, name), t)
				calls = append(calls, fmt.Sprint(name, " ", err))
				return err
			}
		}
	}
	s := meanwhiletest.New(t, func(c *meanwhile.Config) { c.Middleware = []meanwhile.Middleware{wrap("1"), wrap("2")} })
	q := s.AddQueue("images", meanwhile.Concurrency(1), meanwhile.Use(wrap("3")), meanwhile.Use(wrap("4")))
	jobs := meanwhile.HandleKind(q, "crop", func(ctx context.Context, _ *meanwhile.Task, n int) (any, error) {
		return ctx.Value(key{}), nil
	}, meanwhile.Use(wrap("5")))
	if last, err := jobs.SubmitAndWait(t.Context(), 7); err != nil || last != "5" {
		t.Errorf("the function got the context of %v, %v", last, err)
	}
	want := []string{
		"1 crop 7 job_", "2 crop 7 job_", "3 crop 7 job_", "4 crop 7 job_", "5 crop 7 job_",
		"5 <nil>", "4 <nil>", "3 <nil>", "2 <nil>", "1 <nil>",
	}
	if !reflect.DeepEqual(calls, want) {
		t.Errorf("the calls are %q", calls)
	}
}

func TestMiddlewareDecidesOutcome(t *testing.T) {
	t.Parallel()
	commitFailed := errors.New("the commit failed")
	decide := func(next meanwhile.Work) meanwhile.Work {
		return func(ctx context.Context, t *meanwhile.Task) error {
			switch t.Metadata["how"] {
			case "skip":
				return nil
			case "commit":
				return errors.Join(next(ctx, t), meanwhile.Final(commitFailed))
			case "forgive":
				_ = next(ctx, t)
				return nil
			}
			return next(ctx, t)
		}
	}
	s := meanwhiletest.New(t)
	jobs := meanwhile.Handle(s, "work", func(_ context.Context, t *meanwhile.Task, _ int) (int, error) {
		if t.Metadata["how"] == "forgive" {
			return 5, errors.New("no")
		}
		return 7, nil
	}, meanwhile.Use(decide))
	// The result null decodes as 0.
	for how, want := range map[string]int{"": 7, "skip": 0, "forgive": 0} {
		if got, err := jobs.SubmitAndWait(t.Context(), 1, meanwhile.Metadata("how", how)); err != nil || got != want {
			t.Errorf("%q: %d, %v", how, got, err)
		}
	}
	_, err := jobs.SubmitAndWait(t.Context(), 1, meanwhile.Metadata("how", "commit"))
	var failed *meanwhile.JobError
	if !errors.As(err, &failed) || failed.Job.Attempt != 1 || failed.Job.Error.Message != commitFailed.Error() {
		t.Errorf("a failed commit: %v", err)
	}
}

// A forgotten Run shows after a second, in every call and in the log.
func TestForgottenRunIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		s := openServer(t, meanwhile.Config{Logger: slog.New(slog.NewTextHandler(&text, nil))})
		jobs := meanwhile.Handle(s, "echo", echo)
		ctx := t.Context()
		const id = "job_00000000000000000000000000"
		for name, call := range map[string]func() error{
			"Submit":        func() error { _, err := jobs.Submit(ctx, "x"); return err },
			"SubmitAndWait": func() error { _, err := jobs.SubmitAndWait(ctx, "x"); return err },
			"Wait":          func() error { _, err := jobs.Wait(ctx, id); return err },
			"Result":        func() error { _, err := jobs.Result(ctx, id); return err },
			"Watch": func() (failed error) {
				for _, err := range s.Watch(ctx, id, 0) {
					failed = err
				}
				return failed
			},
		} {
			began := time.Now()
			err := call()
			if client.CodeOf(err) != client.CodeUnavailable || !strings.Contains(err.Error(), "Run has not been called") || time.Since(began) != time.Second {
				t.Errorf("%s after %s: %v", name, time.Since(began), err)
			}
		}
		if !strings.Contains(text.String(), "Run has not been called") {
			t.Errorf("the log is %q", text.String())
		}
		quit := startServer(t, s)
		if out, err := jobs.SubmitAndWait(ctx, "x"); err != nil || out != "x" {
			t.Errorf("after Run: %q, %v", out, err)
		}
		quit()
	})
}

// Without a logger, warnings and errors are in the program's own log. It is not parallel,
// because that log is the process's.
func TestWarningsGoToDefaultLogger(t *testing.T) {
	var text strings.Builder
	before, writer, flags := slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, nil)))
	s := openServer(t, meanwhile.Config{})
	slog.SetDefault(before)
	log.SetOutput(writer) // SetDefault sends package log to the logger, and not back
	log.SetFlags(flags)
	jobs := meanwhile.Handle(s, "echo", func(context.Context, *meanwhile.Task, int) (int, error) { panic("a defect") }, meanwhile.MaxAttempts(1))
	quit := startServer(t, s)
	if _, err := jobs.SubmitAndWait(t.Context(), 1); err == nil {
		t.Error("a panic is no error")
	}
	quit()
	if got := text.String(); !strings.Contains(got, "a defect") || !strings.Contains(got, "jobs_test.go") || strings.Contains(got, "level=INFO") {
		t.Errorf("the log is %s", got)
	}
}
