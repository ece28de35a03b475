package client

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"
)

func TestSubmitEncodesFields(t *testing.T) {
	t.Parallel()
	no := false
	tests := []struct {
		rule string
		s    Submission
		want string
	}{
		{"only fields that are set are sent", Submission{Queue: "sim"}, `{"queue":"sim","input":null}`},
		{
			"a raw input is sent unchanged", Submission{Queue: "sim", Input: json.RawMessage(`{ "a" : "<b>" }`)},
			`{"queue":"sim","input":{ "a" : "<b>" }}`,
		},
		{
			"durations are seconds, with fractions", Submission{Queue: "sim", Input: 1, Delay: 1500 * time.Millisecond},
			`{"queue":"sim","delay_s":1.5,"input":1}`,
		},
		{
			"every clock has its name",
			Submission{Queue: "q", Input: 1, Timeouts: Timeouts{
				Lease: 1e9, RunSoft: 2e9, RunHard: 3e9, Request: 4e9, FirstOutput: 5e9, IdleOutput: 6e9, Queue: 7e9, CancelGrace: 8e9,
			}},
			`{"queue":"q","timeouts":{"lease_s":1,"run_soft_s":2,"run_hard_s":3,"request_s":4,"first_output_s":5,"idle_output_s":6,"queue_s":7,"cancel_grace_s":8},"input":1}`,
		},
		{
			"a clock that is off is sent as 0",
			Submission{Queue: "q", Input: 1, Timeouts: Timeouts{RunHard: Off}},
			`{"queue":"q","timeouts":{"run_hard_s":0},"input":1}`,
		},
		{
			"the rest has its name too",
			Submission{
				Queue: "q", Input: 1, Key: "k", Priority: 2, RunAt: time.Unix(0, 0).UTC(), MaxAttempts: 3,
				Retry:    RetryPolicy{Backoff: 1e9, BackoffMax: 2e9, For: 3e9, OnTimeout: &no, AfterOutput: "fail"},
				Metadata: map[string]string{"a": "b"}, IdempotencyKey: "goes into the header",
			},
			`{"queue":"q","key":"k","priority":2,"run_at":"1970-01-01T00:00:00Z","max_attempts":3,` +
				`"retry":{"backoff_s":1,"backoff_max_s":2,"for_s":3,"on_timeout":false,"after_output":"fail"},"metadata":{"a":"b"},"input":1}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			var body []byte
			c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ = io.ReadAll(r.Body)
				okJob(w, r)
			})
			if _, err := c.Submit(t.Context(), tt.s); err != nil {
				t.Fatal(err)
			}
			if string(body) != tt.want {
				t.Errorf("sent\n%s, want\n%s", body, tt.want)
			}
		})
	}
}

func TestSubmitRefusesInvalidJSON(t *testing.T) {
	t.Parallel()
	c := newTestClient(t, func(http.ResponseWriter, *http.Request) { t.Error("it was sent") })
	for _, input := range []any{func() {}, json.RawMessage("{")} {
		if _, err := c.Submit(t.Context(), Submission{Queue: "sim", Input: input}); err == nil {
			t.Errorf("%T was accepted as JSON", input)
		}
	}
}

func TestSubmitAndWait(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule   string
		answer string // to the submit
		want   []string
	}{
		{"a short job takes one request", `{"id":"job_1","status":"succeeded"}`, []string{"POST wait=60"}},
		{"a long job is polled until it ends", `{"id":"job_1","status":"running"}`, []string{"POST wait=60", "GET wait=60"}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			var requests []string
			c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
				requests = append(requests, r.Method+" "+r.Header.Get("Prefer"))
				if r.Method == http.MethodPost {
					w.WriteHeader(http.StatusAccepted)
					_, _ = io.WriteString(w, tt.answer)
					return
				}
				okJob(w, r)
			})
			j, err := c.SubmitAndWait(t.Context(), Submission{Queue: "sim"})
			if err != nil || j.Status != Succeeded {
				t.Fatalf("the job is %+v, the error %v", j, err)
			}
			if len(requests) != len(tt.want) || requests[len(requests)-1] != tt.want[len(tt.want)-1] {
				t.Errorf("the requests are %q, want %q", requests, tt.want)
			}
		})
	}
}
