package server

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// An input has one bound, however it is submitted; that of llm is larger.
func TestInputHasOneBound(t *testing.T) {
	if testing.Short() {
		t.Skip("it sends 130 MB")
	}
	t.Parallel()
	s := serve(t, func(c *config.Config) {
		q := config.Defaults(config.Process)
		q.Process.Command = []string{"true"}
		c.Queues["run"] = q
	})
	for queue, bound := range map[string]int{"run": 1 << 20, "chat": 16 << 20} {
		for extra, want := range map[int]int{0: 202, 1: 413} {
			const frame = len(`{"messages":[{"role":"user","content":""}]}`)
			input := fmt.Sprintf(`{"messages":[{"role":"user","content":"%s"}]}`, strings.Repeat("x", bound+extra-frame))
			job := `{"queue":"` + queue + `","delay_s":3600,"input":` + input + `}`
			if status, j := s.call("POST", "/v1/jobs", job); status != want || want == 413 && j["field"] != "/input" {
				t.Errorf("%s with %d bytes alone: %d %.200v", queue, len(input), status, j)
			}
			status, list := s.call("POST", "/v1/jobs/batch", `{"jobs":[`+job+`]}`)
			one := list["data"].([]any)[0].(map[string]any)
			if refused := one["code"] == "too_large" && one["field"] == "/jobs/0/input"; status != 200 || refused != (want == 413) {
				t.Errorf("%s with %d bytes in a batch: %d %.200v", queue, len(input), status, one)
			}
			if queue == "run" {
				var form bytes.Buffer
				w := multipart.NewWriter(&form)
				_ = w.WriteField("job", job)
				_ = w.Close()
				if status, j := s.call("POST", "/v1/jobs", form.String(), "Content-Type", w.FormDataContentType()); status != want {
					t.Errorf("%s with %d bytes in a form: %d %.200v", queue, len(input), status, j)
				}
			}
		}
	}
}

// A queue's limits bound what a submit asks for, alone and in a batch. What asks for nothing
// passes.
func TestSubmitPastQueueLimitsIsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *config.Config) {
		q := config.Defaults(config.Sim)
		q.Timeouts.RunHard, q.Timeouts.RunSoft = 2*time.Second, 2*time.Second
		q.Limits.Timeouts.RunHard, q.Limits.MaxAttempts, q.Limits.Backoff, q.Limits.Priority = 2*time.Second, 4, time.Second, 5
		c.Queues["sim"] = q
	})
	for asks, want := range map[string]string{
		``:                                "",
		`,"timeouts":{"run_hard_s":1}`:    "",
		`,"timeouts":{"run_hard_s":0}`:    "/timeouts/run_hard_s",
		`,"timeouts":{"run_hard_s":3}`:    "/timeouts/run_hard_s",
		`,"max_attempts":100`:             "/max_attempts",
		`,"retry":{"backoff_s":0}`:        "/retry/backoff_s",
		`,"retry":{"backoff_max_s":0.01}`: "/retry/backoff_max_s",
		`,"priority":1`:                   "/priority",
	} {
		text := `{"queue":"sim","input":{}` + asks + `}`
		status, j := s.call("POST", "/v1/jobs", text)
		_, list := s.call("POST", "/v1/jobs/batch", `{"jobs":[`+text+`]}`)
		one := list["data"].([]any)[0].(map[string]any)
		if want == "" {
			if status != http.StatusAccepted || one["code"] != nil {
				t.Errorf("%s: %d %v, %v", asks, status, j, one)
			}
			continue
		}
		if status != 400 || j["code"] != "past_limit" || j["field"] != want || !strings.Contains(j["detail"].(string), "the queue \"sim\" allows") {
			t.Errorf("%s: %d %v", asks, status, j)
		}
		if one["code"] != "past_limit" || one["field"] != "/jobs/0"+want {
			t.Errorf("%s in a batch: %v", asks, one)
		}
	}
}
