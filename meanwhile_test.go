package meanwhile_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile"
	"github.com/meanwhile-run/meanwhile/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openServer opens a server with the data directory.
func openServer(t *testing.T, c meanwhile.Config) *meanwhile.Server {
	t.Helper()
	if c.Data == "" {
		c.Data = t.TempDir()
	}
	s, err := meanwhile.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// startServer runs the server until quit is called or the test ends.
func startServer(t *testing.T, s *meanwhile.Server) (quit func()) {
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Run(ctx); close(stopped) }()
	quit = func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(quit)
	return quit
}

// runJob submits a job, waits for its end and returns it.
func runJob(t *testing.T, c *client.Client, queue string, input any) *meanwhile.Job {
	t.Helper()
	j, err := c.SubmitAndWait(t.Context(), meanwhile.Submission{Queue: queue, Input: input})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func echo(_ context.Context, _ *meanwhile.Task, in string) (string, error) { return in, nil }

func TestServersInOneProcessAreSeparate(t *testing.T) {
	t.Parallel()
	one, two := openServer(t, meanwhile.Config{}), openServer(t, meanwhile.Config{})
	meanwhile.Handle(one, "echo", echo)
	meanwhile.Handle(two, "echo", func(context.Context, *meanwhile.Task, string) (string, error) { return "two", nil })
	startServer(t, one)
	startServer(t, two)
	first := runJob(t, one.Client, "echo", "one")
	if string(first.Result) != `"one"` {
		t.Errorf("the first server's result is %s", first.Result)
	}
	if second := runJob(t, two.Client, "echo", "one"); string(second.Result) != `"two"` {
		t.Errorf("the second server's result is %s", second.Result)
	}
	if _, err := two.Get(t.Context(), first.ID); client.CodeOf(err) != client.CodeNotFound {
		t.Errorf("the second server has the first one's job: %v", err)
	}
}

func TestOpenLocksDirectory(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	first := openServer(t, meanwhile.Config{Data: data})
	_, err := meanwhile.Open(t.Context(), meanwhile.Config{Data: data})
	if err == nil || !strings.Contains(err.Error(), "another server") || !strings.Contains(err.Error(), data) {
		t.Errorf("the same directory: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openServer(t, meanwhile.Config{Data: data})
}

// The next process has every acknowledged job. A running job goes back to its queue, and its
// attempt does not count.
func TestJobSurvivesRestart(t *testing.T) {
	t.Parallel()
	data, began := t.TempDir(), make(chan struct{})
	first := openServer(t, meanwhile.Config{Data: data, ShutdownGrace: 1})
	meanwhile.Handle(first, "slow", func(ctx context.Context, _ *meanwhile.Task, _ any) (any, error) {
		close(began)
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), meanwhile.ErrStopping) {
			t.Errorf("stopped by %v", context.Cause(ctx))
		}
		return nil, ctx.Err()
	})
	quit := startServer(t, first)
	j, err := first.Submit(t.Context(), meanwhile.Submission{Queue: "slow", Input: 1})
	if err != nil {
		t.Fatal(err)
	}
	<-began
	quit()
	if _, err := first.Get(t.Context(), j.ID); client.CodeOf(err) != "stopped" {
		t.Errorf("a stopped server returns %v", err)
	}

	second := openServer(t, meanwhile.Config{Data: data})
	meanwhile.Handle(second, "slow", func(_ context.Context, t *meanwhile.Task, _ any) (int, error) { return t.Attempt, nil })
	startServer(t, second)
	if j, err = second.Wait(t.Context(), j.ID); err != nil || j.Status != meanwhile.Succeeded || string(j.Result) != "1" {
		t.Errorf("after a restart: %+v, %v", j, err)
	}
}

func TestTaskOutputIsStored(t *testing.T) {
	t.Parallel()
	s := openServer(t, meanwhile.Config{})
	var task *meanwhile.Task
	meanwhile.Handle(s, "speak", func(_ context.Context, t *meanwhile.Task, _ any) (meanwhile.Result, error) {
		task = t
		err := errors.Join(t.Text("a"), t.Text("b"), t.Event(map[string]int{"n": 1}), t.Log("two\nlines: %d", 7),
			t.Progress(50, "Half"), t.Usage(map[string]int{"pages": 2}))
		return meanwhile.Result{ContentType: "text/plain", Body: []byte("plain")}, err
	})
	startServer(t, s)
	j := runJob(t, s.Client, "speak", nil)
	if j.OutputText != "ab" || j.Progress != (meanwhile.Progress{Percent: 100}) || string(j.Usage) != `{"pages":2}` {
		t.Errorf("%+v", j)
	}
	out, err := s.Output(t.Context(), j.ID, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var entries []string
	for _, e := range out.Entries {
		entries = append(entries, string(e.Kind)+" "+string(e.Data))
	}
	for _, want := range []string{`text "ab"`, `json {"n":1}`, `log "two lines: 7"`} {
		if !strings.Contains(strings.Join(entries, "; "), want) {
			t.Errorf("%q does not have %s", entries, want)
		}
	}
	if r, err := s.Result(t.Context(), j.ID); err != nil || r.ContentType != "text/plain" || string(r.Body) != "plain" {
		t.Errorf("the result is %+v, %v", r, err)
	}
	if err := task.Text("late"); err == nil {
		t.Error("a task wrote output after its function had returned")
	}
}

func TestErrorsFailOrRetryJob(t *testing.T) {
	t.Parallel()
	s := openServer(t, meanwhile.Config{})
	meanwhile.Handle(s, "fail", func(_ context.Context, t *meanwhile.Task, how string) (any, error) {
		switch {
		case how == "panic":
			panic("a defect")
		case how == "final":
			return nil, meanwhile.Final(meanwhile.WithCode(errors.New("for good"), "broken"))
		case how == "later" && t.Attempt == 1:
			return nil, errors.New("not yet")
		}
		return t.Attempt, nil
	}, meanwhile.MaxAttempts(2), meanwhile.Backoff(1, 1))
	startServer(t, s)
	if j := runJob(t, s.Client, "fail", "final"); j.Status != meanwhile.Failed || j.Error.Code != "broken" || j.Error.Message != "for good" || j.Attempt != 1 {
		t.Errorf("final: %+v %+v", j, j.Error)
	}
	if j := runJob(t, s.Client, "fail", "later"); j.Status != meanwhile.Succeeded || string(j.Result) != "2" {
		t.Errorf("later: %+v", j)
	}
	j := runJob(t, s.Client, "fail", "panic")
	if j.Status != meanwhile.Failed || j.Error.Code != "panic" || j.Attempt != 2 {
		t.Errorf("panic: %+v %+v", j, j.Error)
	}
	if _, err := s.Result(t.Context(), j.ID); client.CodeOf(err) != client.CodeConflict {
		t.Errorf("the result of a failed job: %v", err)
	}
}

func TestSubmitRefusesInvalidInput(t *testing.T) {
	t.Parallel()
	s := openServer(t, meanwhile.Config{})
	meanwhile.Handle(s, "add", func(_ context.Context, _ *meanwhile.Task, in struct{ A, B int }) (int, error) {
		return in.A + in.B, nil
	})
	startServer(t, s)
	_, err := s.Submit(t.Context(), meanwhile.Submission{Queue: "add", Input: map[string]any{"A": "one"}})
	var refusal *meanwhile.Error
	if !errors.As(err, &refusal) || refusal.Code != client.CodeInvalid || refusal.Field != "/input/A" {
		t.Errorf("%#v", err)
	}
	if j := runJob(t, s.Client, "add", map[string]int{"A": 1, "B": 2}); string(j.Result) != "3" {
		t.Errorf("%s", j.Result)
	}
}

func TestCancelEndsContext(t *testing.T) {
	t.Parallel()
	s := openServer(t, meanwhile.Config{})
	began, why := make(chan string), make(chan error, 1)
	meanwhile.Handle(s, "slow", func(ctx context.Context, t *meanwhile.Task, _ any) (any, error) {
		began <- t.JobID
		<-ctx.Done()
		why <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	startServer(t, s)
	j, err := s.Submit(t.Context(), meanwhile.Submission{Queue: "slow", Input: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Cancel(t.Context(), <-began); err != nil {
		t.Fatal(err)
	}
	if cause := <-why; !errors.Is(cause, meanwhile.ErrCancelled) {
		t.Errorf("the cause is %v", cause)
	}
	if j, err = s.Wait(t.Context(), j.ID); err != nil || j.Status != meanwhile.Cancelled {
		t.Errorf("%+v, %v", j, err)
	}
}

func TestPerKeyLimitsRunningAndWaiting(t *testing.T) {
	t.Parallel()
	s := openServer(t, meanwhile.Config{})
	began, letGo := make(chan string), make(chan struct{})
	meanwhile.Handle(s, "slow", func(_ context.Context, t *meanwhile.Task, _ any) (any, error) {
		began <- t.Key
		<-letGo
		return nil, nil
	}, meanwhile.Concurrency(4), meanwhile.PerKey(1, 2))
	startServer(t, s)
	submit := func(key string) (*meanwhile.Job, error) {
		return s.Submit(t.Context(), meanwhile.Submission{Queue: "slow", Input: 1, Key: key})
	}
	for range 3 {
		if _, err := submit("a"); err != nil {
			t.Fatal(err)
		}
	}
	if key := <-began; key != "a" {
		t.Errorf("a job of %s began", key)
	}
	if _, err := submit("a"); client.CodeOf(err) != "key_full" {
		t.Errorf("a third job of the key may wait: %v", err)
	}
	last, err := submit("b")
	if err != nil {
		t.Fatal(err)
	}
	if key := <-began; key != "b" {
		t.Errorf("a job of %s ran while another job of its key ran", key)
	}
	close(letGo)
	<-began
	<-began
	if _, err := s.Wait(t.Context(), last.ID); err != nil {
		t.Error(err)
	}
}

func TestIdempotencyKeyCreatesOneJob(t *testing.T) {
	t.Parallel()
	s := openServer(t, meanwhile.Config{})
	meanwhile.Handle(s, "echo", echo)
	startServer(t, s)
	once := meanwhile.Submission{Queue: "echo", Input: "x", IdempotencyKey: "once", Key: "k", Priority: 2}
	first, err := s.Submit(t.Context(), once)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Submit(t.Context(), once); err != nil || again.ID != first.ID || again.Key != "k" || again.Priority != 2 {
		t.Errorf("%+v, %v", again, err)
	}
}

// Requests to the program's own mux belong to the users that Config.User returns, whatever
// the users' names.
func TestHandlerUsesConfigUser(t *testing.T) {
	t.Parallel()
	s := openServer(t, meanwhile.Config{
		AllowedHosts: []string{"shop.example"},
		User:         func(r *http.Request) string { return r.Header.Get("Session") },
	})
	meanwhile.Handle(s, "who", func(_ context.Context, t *meanwhile.Task, _ any) (string, error) { return t.User, nil })
	startServer(t, s)
	mux := http.NewServeMux()
	mux.Handle("/", s.Handler())
	request := func(method, path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://shop.example"+path, strings.NewReader(body))
		r.RemoteAddr = "203.0.113.9:4711"
		r.Header.Set("Session", "ann")
		r.Header.Set("X-User-ID", "bob")
		r.Header.Set("X-Forwarded-For", "127.0.0.1")
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Prefer", "wait=60")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w
	}
	w := request("POST", "/v1/jobs", `{"queue":"who","input":1}`)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"result":"ann"`) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	j := runJob(t, s.AsUser("bob"), "who", 1)
	if string(j.Result) != `"bob"` {
		t.Errorf("as bob it is %s", j.Result)
	}
	if w := request("GET", "/v1/jobs/"+j.ID, ""); w.Code != http.StatusNotFound {
		t.Errorf("ann sees bob's job: %d %s", w.Code, w.Body)
	}
	// The user's being known does not make the request one of this machine.
	if w := request("GET", "/metrics", ""); w.Code != http.StatusForbidden {
		t.Errorf("metrics: %d", w.Code)
	}
	if w := request("GET", "/api/conversations", ""); w.Code != http.StatusNotFound {
		t.Errorf("the chat API exists without its queue: %d", w.Code)
	}
}

// A configuration file defines queues and models, as for the stand-alone server.
func TestConfigFileAddsQueues(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "meanwhile.yaml")
	if err := os.WriteFile(file, []byte("data: "+t.TempDir()+"\nqueues: {pretend: {executor: sim, concurrency: 2}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openServer(t, meanwhile.Config{File: file, Listen: "127.0.0.1:0"})
	meanwhile.Handle(s, "echo", echo)
	startServer(t, s)
	remote, err := client.New(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	if j := runJob(t, remote, "pretend", map[string]int{"tokens": 2}); j.Status != meanwhile.Succeeded {
		t.Errorf("%+v", j)
	}
	if j := runJob(t, remote, "echo", "over a socket"); string(j.Result) != `"over a socket"` {
		t.Errorf("%+v", j)
	}
	queues, err := s.Queues(t.Context())
	if err != nil || len(queues) != 4 {
		t.Errorf("the queues are %+v, %v", queues, err)
	}
}

func TestOpenRefusesInvalidConfig(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]meanwhile.Config{
		"Config.Data":      {},
		"other machines":   {Data: t.TempDir(), Listen: "0.0.0.0:0"},
		"cannot read":      {Data: t.TempDir(), File: "nowhere.yaml"},
		"data directory":   {Data: "/dev/null/x"},
		"cannot listen":    {Data: t.TempDir(), Listen: "127.0.0.1:-1"},
		"loopback or what": {Data: t.TempDir(), Listen: "nonsense"},
	} {
		if want == "loopback or what" {
			want = "other machines"
		}
		if _, err := meanwhile.Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}

func TestHandlePanicsOnMisuse(t *testing.T) {
	t.Parallel()
	s := openServer(t, meanwhile.Config{})
	meanwhile.Handle(s, "echo", echo)
	panics := func(what string, handle func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", what)
			}
		}()
		handle()
	}
	refused := func(what, queue string, options ...meanwhile.QueueOption) {
		t.Helper()
		panics(what, func() { meanwhile.Handle(s, queue, echo, options...) })
	}
	panics("a nil function", func() { meanwhile.Handle[int, int](s, "nil", nil) })
	q := s.AddQueue("kinds")
	meanwhile.HandleKind(q, "echo", echo)
	panics("an existing kind", func() { meanwhile.HandleKind(q, "echo", echo) })
	panics("an invalid kind", func() { meanwhile.HandleKind(q, "", echo) })
	panics("an invalid option of a kind", func() { meanwhile.HandleKind(q, "none", echo, meanwhile.MaxAttempts(0)) })
	panics("a kind without a function", func() { meanwhile.HandleKind[int, int](q, "nil", nil) })
	refused("an existing queue", "echo")
	refused("the queue of kinds", "kinds")
	refused("a negative backoff", "negative", meanwhile.Backoff(-1, 1))
	refused("an invalid name", "Echo!")
	refused("no concurrency", "none", meanwhile.Concurrency(0))
	startServer(t, s)
	runJob(t, s.Client, "echo", "it runs")
	refused("while it runs", "late")
	panics("a kind while it runs", func() { meanwhile.HandleKind(q, "late", echo) })
}

func TestRunRefusesSecondCall(t *testing.T) {
	t.Parallel()
	s := openServer(t, meanwhile.Config{})
	quit := startServer(t, s)
	quit()
	if err := s.Run(t.Context()); err == nil {
		t.Error("the second Run returned no error")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
