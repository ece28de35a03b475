package llm

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/loopback"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// sentTraceparent returns the traceparent that a server receives for a job whose trace is "of
// the job".
func sentTraceparent(t *testing.T, hook CallHook) string {
	t.Helper()
	sent := "no request"
	upstream := simmodel.New(simmodel.Options{})
	e := mustNew(t, Config{
		Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}},
		Transport: loopback.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sent = r.Header.Get("Traceparent")
			upstream.ServeHTTP(w, r)
		})),
		OnCall: hook,
	})
	task := exectest.Task([]byte(hello))
	task.Job.Trace = "of the job"
	if err := exectest.Start(t, e, task).Wait(); err != nil {
		t.Fatal(err)
	}
	return sent
}

// The server gets the trace of the job, or the trace that the hook returns.
func TestCallSendsTraceparent(t *testing.T) {
	t.Parallel()
	if got := sentTraceparent(t, nil); got != "of the job" {
		t.Errorf("the server was sent %q", got)
	}
	got := sentTraceparent(t, func(context.Context, string) (string, func(int, []byte, error)) {
		return "of the call", func(int, []byte, error) {}
	})
	if got != "of the call" {
		t.Errorf("the server was sent %q", got)
	}
}

// The hook gets the status, the usage and the error.
func TestHookGetsResultOfCall(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]struct {
		status int
		tokens int
		code   string
	}{
		`{"messages":[{"role":"user","content":"x"}],"sim":{"tokens":3}}`:      {200, 3, ""},
		`{"messages":[{"role":"user","content":"x"}],"sim":{"fault":"429"}}`:   {429, 0, "upstream_rate_limited"},
		`{"messages":[{"role":"user","content":"x"}],"sim":{"fault":"close"}}`: {0, 0, "upstream_disconnected"},
	} {
		calls := 0
		e := mustNew(t, Config{
			Models:    []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}},
			Transport: loopback.Transport(simmodel.New(simmodel.Options{})),
			OnCall: func(_ context.Context, model string) (string, func(int, []byte, error)) {
				return "", func(status int, usage []byte, err error) {
					calls++
					var u struct {
						Tokens int `json:"completion_tokens"`
					}
					_ = json.Unmarshal(usage, &u)
					code := ""
					if err != nil {
						code = job.FaultOf(err).Code
					}
					if model != "m" || status != want.status || u.Tokens != want.tokens || code != want.code {
						t.Errorf("%s: the hook got %s: %d, %d tokens, %q", input, model, status, u.Tokens, code)
					}
				}
			},
		})
		_ = exectest.Start(t, e, exectest.Task([]byte(input))).Wait()
		if calls != 1 {
			t.Errorf("%s: the hook was called %d times at the end", input, calls)
		}
	}
}
