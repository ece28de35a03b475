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

// traceOf is the traceparent that a server was sent by a job that has one.
func traceOf(t *testing.T, follow CallHook) string {
	t.Helper()
	sent := "nothing was asked"
	upstream := simmodel.New(simmodel.Options{})
	e := must(t, Config{
		Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}},
		Transport: loopback.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sent = r.Header.Get("Traceparent")
			upstream.ServeHTTP(w, r)
		})),
		OnCall: follow,
	})
	task := exectest.Task([]byte(hello))
	task.Job.Trace = "of the job"
	if err := exectest.Start(t, e, task).Wait(); err != nil {
		t.Fatal(err)
	}
	return sent
}

// A model's server is sent the job's trace, or what whoever follows the call says.
func TestTheTraceGoesAlong(t *testing.T) {
	if got := traceOf(t, nil); got != "of the job" {
		t.Errorf("the server was sent %q", got)
	}
	got := traceOf(t, func(context.Context, string) (string, func(int, []byte, error)) {
		return "of the call", func(int, []byte, error) {}
	})
	if got != "of the call" {
		t.Errorf("the server was sent %q", got)
	}
}

// Whoever follows a call is told its end: the status, the usage and the failure.
func TestACallIsFollowedToItsEnd(t *testing.T) {
	for input, want := range map[string]struct {
		status int
		tokens int
		code   string
	}{
		`{"messages":[{"role":"user","content":"x"}],"sim":{"tokens":3}}`:      {200, 3, ""},
		`{"messages":[{"role":"user","content":"x"}],"sim":{"fault":"429"}}`:   {429, 0, "upstream_rate_limited"},
		`{"messages":[{"role":"user","content":"x"}],"sim":{"fault":"close"}}`: {0, 0, "upstream_disconnected"},
	} {
		told := 0
		e := must(t, Config{
			Models:    []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}},
			Transport: loopback.Transport(simmodel.New(simmodel.Options{})),
			OnCall: func(_ context.Context, model string) (string, func(int, []byte, error)) {
				return "", func(status int, usage []byte, err error) {
					told++
					var u struct {
						Tokens int `json:"completion_tokens"`
					}
					_ = json.Unmarshal(usage, &u)
					code := ""
					if err != nil {
						code = job.FaultOf(err).Code
					}
					if model != "m" || status != want.status || u.Tokens != want.tokens || code != want.code {
						t.Errorf("%s: told of %s: %d, %d tokens, %q", input, model, status, u.Tokens, code)
					}
				}
			},
		})
		_ = exectest.Start(t, e, exectest.Task([]byte(input))).Wait()
		if told != 1 {
			t.Errorf("%s: told %d times", input, told)
		}
	}
}
