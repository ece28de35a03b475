package llm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/loopback"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testKey = "sk-test-0123456789"
	hello   = `{"messages":[{"role":"user","content":"hello"}]}`
)

// newExecutor returns an executor with one model, "m", at base. It reuses no connection.
func newExecutor(t *testing.T, base string) *Executor {
	t.Helper()
	return mustNew(t, Config{
		Models:    []Model{{Name: "m", BaseURL: base, APIKey: testKey, APIKeyEnv: "TEST_KEY"}},
		Transport: &http.Transport{DisableKeepAlives: true},
	})
}

// newInMemory returns an executor that calls h without a socket.
func newInMemory(t *testing.T, h http.Handler) *Executor {
	t.Helper()
	return mustNew(t, Config{
		Models:    []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}},
		Transport: loopback.Transport(h),
	})
}

func mustNew(t *testing.T, c Config) *Executor {
	t.Helper()
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func serve(t *testing.T, h http.Handler) (base string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL + "/v1"
}

// streamHandler answers every request with these events, in one write.
func streamHandler(data ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		var all strings.Builder
		for _, d := range data {
			fmt.Fprintf(&all, "data: %s\n\n", d)
		}
		_, _ = io.WriteString(w, all.String())
	}
}

// run runs one attempt, which must succeed, and returns its record.
func run(t *testing.T, e exec.Executor, input string) exectest.Record {
	t.Helper()
	a := exectest.Start(t, e, exectest.Task([]byte(input)))
	if err := a.Wait(); err != nil {
		t.Fatalf("the attempt failed: %v", err)
	}
	return a.Sink.Record()
}

func TestConformance(t *testing.T) {
	upstream := simmodel.New(simmodel.Options{})
	suite := exectest.Suite{
		Good:       []byte(`{"messages":[{"role":"user","content":"x"}],"sim":{"tokens":3}}`),
		GoodOutput: "You said: “x”\n\nThis ",
		Failing:    []byte(`{"messages":[{"role":"user","content":"x"}],"sim":{"fault":"500"}}`),
		Endless:    []byte(`{"messages":[{"role":"user","content":"x"}],"sim":{"tokens":100000,"tokens_per_s":20}}`),
		Invalid:    [][]byte{nil, []byte("hello"), []byte("[]"), []byte("null"), []byte(`{}`), []byte(`{"messages":[]}`)},
	}
	t.Run("in memory", func(t *testing.T) {
		suite.New = func(t *testing.T) exec.Executor { return newInMemory(t, upstream) }
		suite.Run(t)
	})
	t.Run("over loopback", func(t *testing.T) {
		base := serve(t, upstream)
		suite.New = func(t *testing.T) exec.Executor { return newExecutor(t, base) }
		suite.Run(t)
	})
}

func TestCheckNamesTheField(t *testing.T) {
	t.Parallel()
	e := mustNew(t, Config{Models: []Model{{Name: "small", BaseURL: "http://a/v1"}, {Name: "large", BaseURL: "http://a/v1"}}})
	for input, want := range map[string]struct{ field, message string }{
		`{`:                        {"", "must be a JSON object"},
		"{\"messages\": \"\xff\"}": {"", "must be a JSON object"},
		`{"model":"small"}`:        {"/messages", "at least one"},
		`{"messages":{}}`:          {"/messages", "at least one"},
		`{"messages":["hello"]}`:   {"/messages/0", "must be an object"},
		`{"messages":[null]}`:      {"/messages/0", "must be an object"},
		`{"messages":[{"role":"user"},{"content":"x"}]}`:                 {"/messages/1/role", "must have a role"},
		`{"messages":[{"role":7}]}`:                                      {"/messages/0/role", "must have a role"},
		`{"messages":[{"role":""}]}`:                                     {"/messages/0/role", "must have a role"},
		`{"model":"huge","messages":[{"role":"user"}]}`:                  {"/model", `there is no model "huge": there are small, large`},
		`{"model":["small"],"messages":[{"role":"user"}]}`:               {"/model", "one of small, large"},
		`{"model":null,"messages":[{"role":"user"}]}`:                    {"/model", "one of small, large"},
		`{"stream_options":[],"messages":[{"role":"user"}]}`:             {"/stream_options", "must be an object"},
		`{"messages":[{"role":"user","content":"x"}],"model":"small"} {`: {"", "must be a JSON object"},
	} {
		var refusal *job.Error
		if err := e.Check([]byte(input)); !errors.As(err, &refusal) || refusal.Code != job.Invalid {
			t.Errorf("Check(%s) = %v, want a refusal", input, err)
		} else if refusal.Field != want.field || !strings.Contains(refusal.Message, want.message) {
			t.Errorf("Check(%s) names the field %q: %s", input, refusal.Field, refusal.Message)
		}
	}
}

func TestNewRefusesInvalidConfig(t *testing.T) {
	t.Parallel()
	good := Model{Name: "m", BaseURL: "https://a.example/v1"}
	for name, c := range map[string]Config{
		"no models":          {},
		"no name":            {Models: []Model{{BaseURL: good.BaseURL}}},
		"the same twice":     {Models: []Model{good, good}},
		"an unknown default": {Models: []Model{good}, Default: "other"},
		"no address":         {Models: []Model{{Name: "m"}}},
		"no scheme":          {Models: []Model{{Name: "m", BaseURL: "a.example/v1"}}},
		"another scheme":     {Models: []Model{{Name: "m", BaseURL: "ftp://a.example/v1"}}},
		"a password":         {Models: []Model{{Name: "m", BaseURL: "https://u:p@a.example/v1"}}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: New accepted it", name)
		}
	}
}

// The server gets the input unchanged, except for the members that the executor sets.
func TestInputIsForwardedUnchanged(t *testing.T) {
	t.Parallel()
	var got map[string]json.RawMessage
	var header http.Header
	var path string
	base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header, path = r.Header, r.URL.Path
		_ = json.NewDecoder(r.Body).Decode(&got)
		streamHandler(`{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}`, "[DONE]")(w, r)
	}))
	e := mustNew(t, Config{Models: []Model{
		{Name: "other", BaseURL: base}, {Name: "m", Upstream: "vendor/m-2", BaseURL: base + "/", APIKey: testKey},
	}, Default: "m"})
	run(t, e, `{"messages":[{"role":"user","content":"<b>"}],"temperature":0.10,"stream":false,"n":1e0,`+
		`"stream_options":{"include_usage":false,"extra":1},"new_field":{"b":[1,2],"a":null}}`)
	for name, want := range map[string]string{
		"messages":       `[{"role":"user","content":"<b>"}]`,
		"temperature":    "0.10",
		"n":              "1e0",
		"new_field":      `{"b":[1,2],"a":null}`,
		"model":          `"vendor/m-2"`,
		"stream":         "true",
		"stream_options": `{"extra":1,"include_usage":true}`,
	} {
		if string(got[name]) != want {
			t.Errorf("%s was sent as %s, want %s", name, got[name], want)
		}
	}
	if len(got) != 7 || path != "/v1/chat/completions" {
		t.Errorf("it sent %d fields to %s", len(got), path)
	}
	if header.Get("Authorization") != "Bearer "+testKey || header.Get("Content-Type") != "application/json" {
		t.Errorf("it sent the headers %v", header)
	}
}

func TestWithDefaultSetsTheModel(t *testing.T) {
	t.Parallel()
	e := mustNew(t, Config{
		Models:    []Model{{Name: "a", BaseURL: "http://upstream.invalid/v1"}, {Name: "b", BaseURL: "http://upstream.invalid/v1"}},
		Transport: loopback.Transport(simmodel.New(simmodel.Options{})),
	})
	other, err := e.WithDefault("b")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		e           *Executor
		input, want string
	}{
		{e, hello, "a"},
		{other, hello, "b"},
		{other, `{"model":"a","messages":[{"role":"user","content":"x"}]}`, "a"},
	} {
		var result struct{ Model string }
		_ = json.Unmarshal(run(t, c.e, c.input).Results[0].Body, &result)
		if result.Model != c.want {
			t.Errorf("%s was answered by %q, want %q", c.input, result.Model, c.want)
		}
	}
}

func TestProgressIncreasesWithTokens(t *testing.T) {
	t.Parallel()
	r := run(t, newInMemory(t, simmodel.New(simmodel.Options{Tokens: 5000})), hello)
	reports := r.Progress()
	last := len(reports) - 1
	if reports[0] != (job.Progress{Percent: 1, Status: "Generating response"}) ||
		reports[last] != (job.Progress{Percent: 100, Status: "Complete"}) {
		t.Errorf("the reports are %v", reports)
	}
	for i := range reports[1:] {
		if reports[i+1].Percent <= reports[i].Percent {
			t.Errorf("the reports are %v", reports)
		}
	}
	if before := reports[last-1].Percent; before < 60 || before >= 80 {
		t.Errorf("before the end the progress was %v percent", before)
	}
}

// Before a connection, and without words, there is nothing to report.
func TestNoProgressBeforeTheFirstWords(t *testing.T) {
	t.Parallel()
	_, r := runFailing(t, newInMemory(t, simmodel.New(simmodel.Options{Fault: "500"})), hello)
	if reports := r.Progress(); len(reports) > 0 {
		t.Errorf("the reports are %v", reports)
	}
}

func TestCancelClosesTheUpstreamConnection(t *testing.T) {
	t.Parallel()
	for _, fault := range []simmodel.Fault{simmodel.Hang, simmodel.HangMidStream} {
		asked, left := make(chan struct{}), make(chan struct{})
		h := simmodel.New(simmodel.Options{Fault: fault, FaultAfter: 2})
		base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(asked)
			h.ServeHTTP(w, r)
			<-r.Context().Done()
			close(left)
		}))
		a := exectest.Start(t, newExecutor(t, base), exectest.Task([]byte(hello)))
		<-asked
		if fault == simmodel.HangMidStream {
			a.Sink.WaitUntil(exectest.HasText)
		}
		a.Stop(exec.ErrCancelled)
		if err := a.Wait(); !errors.Is(err, exec.ErrCancelled) {
			t.Errorf("%s: the cancelled attempt ended with %v", fault, err)
		}
		<-left
	}
}

// The third call waits for one of two slots and resets its timeouts meanwhile.
func TestConcurrencyLimitMakesCallsWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, maxRunning atomic.Int32
		h := simmodel.New(simmodel.Options{FirstToken: 1500 * time.Millisecond})
		e := mustNew(t, Config{
			Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1", Concurrency: 2}},
			Transport: loopback.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				maxRunning.Store(max(maxRunning.Load(), running.Add(1)))
				defer running.Add(-1)
				h.ServeHTTP(w, r)
			})),
		})
		var attempts []*exectest.Attempt
		for range 3 {
			attempts = append(attempts, exectest.Start(t, e, exectest.Task([]byte(hello))))
			synctest.Wait()
		}
		var resets []int
		for _, a := range attempts {
			if err := a.Wait(); err != nil {
				t.Error(err)
			}
			resets = append(resets, a.Sink.Record().Resets)
		}
		if maxRunning.Load() != 2 {
			t.Errorf("%d calls ran at once, want 2", maxRunning.Load())
		}
		if resets[0] != 0 || resets[1] != 0 || resets[2] != 2 {
			t.Errorf("the timeouts were reset %v times; the third call waits a second and a half", resets)
		}
	})
}

func TestCancelledWaitTakesNoSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := mustNew(t, Config{
			Models:    []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1", Concurrency: 1}},
			Transport: loopback.Transport(simmodel.New(simmodel.Options{FirstToken: time.Minute})),
		})
		first := exectest.Start(t, e, exectest.Task([]byte(hello)))
		synctest.Wait()
		second := exectest.Start(t, e, exectest.Task([]byte(hello)))
		synctest.Wait()
		second.Stop(exec.ErrCancelled)
		if err := second.Wait(); !errors.Is(err, exec.ErrCancelled) {
			t.Errorf("the cancelled attempt ended with %v", err)
		}
		third := exectest.Start(t, e, exectest.Task([]byte(hello)))
		for _, a := range []*exectest.Attempt{first, third} {
			if err := a.Wait(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRequestTimeout(t *testing.T) {
	t.Parallel()
	whole := func(ctx context.Context, w http.ResponseWriter, body io.Reader) {
		_, _ = io.Copy(io.Discard, body)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"choices":[`)
		<-ctx.Done()
	}
	for name, c := range map[string]struct {
		h    http.Handler
		code string // "" succeeds
	}{
		"a server that never answers": {simmodel.New(simmodel.Options{Fault: simmodel.Hang}), "upstream_timeout"},
		"an unstreamed answer that comes too late": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			whole(r.Context(), w, r.Body)
		}), "upstream_timeout"},
		"a stream that begins in time and goes on for long": {simmodel.New(simmodel.Options{Tokens: 100, TokensPerSecond: 1}), ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			task := exectest.Task([]byte(hello))
			task.Job.Policy.Timeouts.Request = time.Minute
			err := exectest.Start(t, newInMemory(t, c.h), task).Wait()
			if c.code == "" {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				return
			}
			f := job.FaultOf(err)
			if f.Code != c.code || f.Class != job.Retryable || !strings.Contains(f.Message, "request_s") {
				t.Errorf("%s: %q, class %d: %s", name, f.Code, f.Class, f.Message)
			}
			if took := time.Since(start); took != time.Minute {
				t.Errorf("%s: it timed out after %v", name, took)
			}
		})
	}
}

// pipeListener is a listener for connections that a test makes. The test closes it.
type pipeListener chan net.Conn

func (p pipeListener) Accept() (net.Conn, error) {
	if c, open := <-p; open {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipeListener) Close() error   { return nil }
func (p pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// The connection of an answered call is used for the next call.
func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // in a bubble, so that drainTimeout cannot pass
		connections := make(pipeListener)
		server := &http.Server{Handler: simmodel.New(simmodel.Options{})}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(connections) })
		dialled := 0
		transport := newTransport()
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			dialled++
			ours, theirs := net.Pipe()
			connections <- theirs
			return ours, nil
		}
		e := mustNew(t, Config{Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}}, Transport: transport})
		for range 5 {
			run(t, e, hello)
		}
		if dialled != 1 {
			t.Errorf("five calls took %d connections", dialled)
		}
		transport.CloseIdleConnections()
		close(connections)
		_ = server.Close()
		serving.Wait()
	})
}
