package server

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// serveModels starts a server with models of these names, all of one simulated
// server over loopback.
func serveModels[V any](t *testing.T, names map[string]V) *testServer {
	upstream := httptest.NewServer(simmodel.New(simmodel.Defaults()))
	t.Cleanup(upstream.Close)
	t.Cleanup(upstream.CloseClientConnections)
	return serve(t, func(c *config.Config) {
		for name := range names {
			c.Models = append(c.Models, config.Model{Name: name, BaseURL: upstream.URL + "/v1", Concurrency: 64})
		}
	})
}

// clocksOf returns timeouts and retries with which every fault ends the job. Only the clock
// that the fault exceeds is short: on a slow machine, another short clock could end first.
func clocksOf(fault string) string {
	fast := map[string]string{"hang": `"request_s":0.5`, "hang-mid-stream": `"idle_output_s":0.5`}[fault]
	if fast == "" {
		fast = `"request_s":60`
	}
	return `"max_attempts":2,"timeouts":{"first_output_s":60,` + fast + `},"retry":{"backoff_s":0.01,"for_s":1}`
}

// A permanent fault becomes the job's error, with advice, after the attempts that may help.
// No fault leaves the job running.
func TestEveryUpstreamFaultEndsTheJob(t *testing.T) {
	faults := map[string]struct {
		code     string
		attempts float64
	}{
		"400":                {"upstream_rejected", 1},
		"401":                {"upstream_unauthorized", 1},
		"404":                {"upstream_not_found", 1},
		"429":                {"upstream_rate_limited", 1},
		"500":                {"upstream_error", 2},
		"503":                {"upstream_unavailable or circuit_open", 1}, // depends on the last wait; waits cost no attempt
		"hang":               {"upstream_timeout", 2},
		"close":              {"upstream_disconnected", 2},
		"hang-mid-stream":    {"idle_output_timeout", 2},
		"close-mid-stream":   {"upstream_disconnected", 2},
		"end-mid-stream":     {"upstream_incomplete", 2},
		"error-mid-stream":   {"upstream_error", 2},
		"malformed-sse":      {"upstream_bad_stream", 2},
		"enormous-line":      {"upstream_too_large", 1},
		"wrong-content-type": {"upstream_bad_answer", 2},
		"quota":              {"upstream_quota_exhausted", 1},
		"no-retry":           {"upstream_rate_limited", 1},
		"finish-error":       {"upstream_error", 2},
		"error-in-choice":    {"upstream_error", 2},
		"nested-event":       {"upstream_bad_stream", 1},
	}
	if testing.Short() {
		delete(faults, "enormous-line") // the race detector needs a second for its bytes
	}
	s := serveModels(t, faults) // each fails alone, without opening the circuit of another
	for fault, want := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			body := fmt.Sprintf(`{"queue":"chat","input":{"model":%[1]q,"messages":[{"role":"user","content":"hello"}],
				"sim":{"fault":%[1]q,"first_token_ms":1,"tokens_per_s":1000,"retry_after_s":0.1}},%[2]s}`, fault, clocksOf(fault))
			_, j := s.call("POST", "/v1/jobs", body, "Prefer", "wait=60")
			failure, _ := j["error"].(map[string]any)
			if j["status"] != "failed" || !slices.Contains(strings.Split(want.code, " or "), fmt.Sprint(failure["code"])) || failure["attempt"] != want.attempts {
				t.Errorf("the job is %v with %v, want the code %s of attempt %v", j["status"], failure, want.code, want.attempts)
			}
			if message, _ := failure["message"].(string); len(message) < 20 {
				t.Errorf("nobody can act on %q", message)
			}
		})
	}
}

// A temporary fault costs an attempt, or none when the upstream asked to wait. The next
// answer is complete.
func TestPassingUpstreamFaultIsRetried(t *testing.T) {
	faults := map[string]float64{
		"500": 2, "close": 2, "close-mid-stream": 2, "malformed-sse": 2, "429": 1, "503": 1,
	}
	s := serveModels(t, faults)
	for fault, attempts := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			body := fmt.Sprintf(`{"queue":"chat","input":{"model":%[1]q,"messages":[{"role":"user","content":"hello"}],
				"sim":{"fault":%[1]q,"fault_times":1,"key":%[1]q,"first_token_ms":1,"tokens_per_s":5000,"tokens":20,"retry_after_s":0.1}},
				"retry":{"backoff_s":0.01,"for_s":60}}`, fault)
			_, j := s.call("POST", "/v1/jobs", body, "Prefer", "wait=60")
			result, _ := j["result"].(map[string]any)
			// A connection that is closed after it was idle costs no attempt.
			if fault == "close" && j["attempt"] == 1.0 {
				attempts = 1
			}
			if j["status"] != "succeeded" || j["attempt"] != attempts || result["object"] != "chat.completion" {
				t.Errorf("the job is %v after %v attempts (%v), want succeeded after %v", j["status"], j["attempt"], j["error"], attempts)
			}
		})
	}
}

// An answer in an odd form succeeds at its first attempt.
func TestOddAnswersSucceed(t *testing.T) {
	faults := map[string]bool{
		"single-newlines": true, "stream-as-json": true, "packed-stream": true, "odd-types": true, "no-stream": true, "tools-without-index": true, "cut-characters": true, "huge-usage": true,
	}
	s := serveModels(t, faults)
	for fault := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			body := fmt.Sprintf(`{"queue":"chat","input":{"model":%[1]q,"messages":[{"role":"user","content":"hello"}],
				"sim":{"fault":%[1]q,"first_token_ms":1,"tokens_per_s":5000,"tokens":20}},"max_attempts":1}`, fault)
			_, j := s.call("POST", "/v1/jobs", body, "Prefer", "wait=60")
			result, _ := j["result"].(map[string]any)
			if j["status"] != "succeeded" || result["choices"] == nil || len(fmt.Sprint(j["usage"])) > 5000 {
				t.Errorf("the job is %v with %v, the result is %.500v", j["status"], j["error"], result)
			}
		})
	}
}

// A server that only shows that it is alive is not silent.
func TestKeepAliveCommentsAreLife(t *testing.T) {
	if testing.Short() {
		t.Skip("waits two seconds")
	}
	t.Parallel()
	o := simmodel.Options{Tokens: 3, FirstToken: 2 * time.Second, KeepAlive: 20 * time.Millisecond}
	upstream := httptest.NewServer(simmodel.New(o))
	t.Cleanup(upstream.Close)
	s := serve(t, func(c *config.Config) {
		c.Models = []config.Model{{Name: "m", BaseURL: upstream.URL + "/v1"}}
	})
	_, j := s.call("POST", "/v1/jobs", `{"queue":"chat","input":{"messages":[{"role":"user","content":"hello"}]},"max_attempts":1,
		"timeouts":{"first_output_s":1,"idle_output_s":1,"request_s":60}}`, "Prefer", "wait=60")
	if j["status"] != "succeeded" {
		t.Errorf("the job is %v with %v", j["status"], j["error"])
	}
}

// cancelIgnorer is an executor. Its jobs with the input "ignore" ignore a cancel and run until
// release is closed; other jobs end at once.
type cancelIgnorer struct{ release chan struct{} }

func (cancelIgnorer) Kind() string       { return "func" }
func (cancelIgnorer) TakesFiles() bool   { return true }
func (cancelIgnorer) Check([]byte) error { return nil }

func (d cancelIgnorer) Execute(_ context.Context, t exec.Task, out exec.Sink) error {
	if string(t.Input) == `"ignore"` {
		<-d.release
	}
	out.Result(job.Result{ContentType: "text/plain", Body: []byte("late")})
	return nil
}

// serveCancelIgnorer starts a server with a queue of one slot.
func serveCancelIgnorer(t *testing.T, d cancelIgnorer, change func(*config.Config)) *testServer {
	t.Helper()
	q := config.FuncQueue()
	q.Concurrency = 1
	return serveWith(t, change, func(s *Server) error { return s.Add("work", q, d) })
}

// After the grace the job ends as cancelled and the next one runs. The result of the
// cancelled work is not kept.
func TestWorkThatIgnoresItsCancelLosesItsSlot(t *testing.T) {
	t.Parallel()
	d := cancelIgnorer{make(chan struct{})}
	s := serveCancelIgnorer(t, d, nil)
	_, ignores := s.call("POST", "/v1/jobs", `{"queue":"work","input":"ignore","timeouts":{"cancel_grace_s":0.2}}`)
	path := "/v1/jobs/" + ignores["id"].(string)
	if status, j := s.call("POST", path+"/cancel", ""); status != 202 || j["cancel_requested_at"] == nil {
		t.Fatalf("cancel: %d %v", status, j)
	}
	_, next := s.call("POST", "/v1/jobs", `{"queue":"work","input":1}`, "Prefer", "wait=60")
	if next["status"] != "succeeded" {
		t.Errorf("the next job is %v", next["status"])
	}
	if _, j := s.call("GET", path, ""); j["status"] != "cancelled" {
		t.Errorf("the cancelled job is %v", j["status"])
	}
	close(d.release)
	s.quit() // the cancelled work has ended by now
	s = serveCancelIgnorer(t, d, func(c *config.Config) { c.Data = s.cfg.Data })
	if status, _ := s.call("GET", path+"/result", ""); status != 409 {
		t.Errorf("the late result: %d", status)
	}
	if _, j := s.call("GET", path, ""); j["status"] != "cancelled" || j["result"] != nil {
		t.Errorf("after its late result the job is %v", j)
	}
}
