package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestSubmitReachesEngineComplete(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		in := time.Now().Add(90 * time.Minute).Format(time.RFC3339Nano)
		body := `{"queue":"sim","input":{"a": [1, null]},"priority":2,"key":"ann","run_at":"` + in + `","max_attempts":7,
			"timeouts":{"lease_s":60.5,"run_hard_s":10,"request_s":1,"first_output_s":2,"idle_output_s":3,"queue_s":4,"cancel_grace_s":0.5},
			"retry":{"backoff_s":0.25,"backoff_max_s":9,"for_s":60,"on_timeout":true,"after_output":"fail"},
			"metadata":{"b":"2","a":"1"}}`
		w := f.ask("POST", "/v1/jobs", body, "Idempotency-Key", "once", "X-User-ID", "ann", "Content-Type", "application/json")
		want := engine.Request{
			Owner: job.Owner{User: "ann"}, Queue: "sim", Key: "ann", Priority: 2, Input: []byte(`{"a": [1, null]}`),
			Delay: 90 * time.Minute, MaxAttempts: 7, Metadata: map[string]string{"a": "1", "b": "2"},
			Policy: &job.Policy{
				Timeouts: job.Timeouts{
					Lease: 60500 * time.Millisecond, RunSoft: 10 * time.Second, RunHard: 10 * time.Second, Request: time.Second,
					FirstOutput: 2 * time.Second, IdleOutput: 3 * time.Second, Queue: 4 * time.Second, CancelGrace: 500 * time.Millisecond,
				},
				Retry: job.Retry{Backoff: 250 * time.Millisecond, BackoffMax: 9 * time.Second, For: time.Minute, OnTimeout: true, AfterOutput: job.FailAfterOutput},
			},
			IdempotencyKey: "once", Hash: sha256.Sum256([]byte(body)),
		}
		if !reflect.DeepEqual(f.request, want) {
			t.Errorf("got  %+v\nwant %+v", f.request, want)
		}
		if w.Code != 202 || w.Header().Get("Location") != jobPath || w.Header().Get("Vary") != "Prefer" || w.Header().Get("Preference-Applied") != "" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
	})
}

// The shortest submit leaves everything else to the queue.
func TestMinimalSubmitUsesQueueDefaults(t *testing.T) {
	t.Parallel()
	for _, input := range []string{`null`, `0`, `""`, `[]`, `{"x":{}}`} {
		f := newFake(t)
		w := f.ask("POST", "/v1/jobs", `{"queue":"sim","input":`+input+`,"key":null,"metadata":null,"priority":null}`)
		want := engine.Request{Owner: owner, Queue: "sim", Input: []byte(input)}
		if w.Code != 202 || !reflect.DeepEqual(f.request, want) {
			t.Errorf("%d %s: %+v", w.Code, w.Body, f.request)
		}
	}
}

// A field that a submit leaves out comes from the queue's policy.
func TestPolicyOverlaysQueuePolicy(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.ask("POST", "/v1/jobs", `{"queue":"sim","input":1,"timeouts":{"run_soft_s":5},"retry":{"for_s":0}}`)
	want := testQueue().Policy
	want.Timeouts.RunSoft, want.Retry.For = 5*time.Second, 0
	if f.request.Policy == nil || !reflect.DeepEqual(*f.request.Policy, want) {
		t.Errorf("%+v", f.request.Policy)
	}
}

// A job is abandoned after the time in the submit, or else in its queue's policy.
func TestAbandonAfterOverlaysQueue(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]time.Duration{"120": 2 * time.Minute, "0": 0, "180.5": 180500 * time.Millisecond} {
		f := newFake(t)
		f.ask("POST", "/v1/jobs", `{"queue":"sim","input":1,"abandon_after_s":`+given+`}`)
		if p := f.request.Policy; p == nil || p.Timeouts.Abandon != want || p.Timeouts.Lease != testQueue().Policy.Timeouts.Lease {
			t.Errorf("%s: %+v", given, p)
		}
	}
}

func TestPastRunAtMeansNow(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.ask("POST", "/v1/jobs", `{"queue":"sim","input":1,"run_at":"2001-01-01T00:00:00+02:00"}`)
	if len(f.calls) != 1 || f.request.Delay != 0 {
		t.Errorf("%v, %v", f.calls, f.request.Delay)
	}
}

// The status is 202 while the job runs, and 200 once it has ended. A replay has its
// header.
func TestSubmitReturnsStatusOfJob(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rule     string
		state    job.State
		existing bool
		prefer   string
		call     string
		status   int
		applied  string
	}{
		{"no preference", job.Queued, false, "", "submit", 202, ""},
		{"a delayed job", job.Scheduled, false, "", "submit", 202, ""},
		{"a wait until the end", job.Succeeded, false, "wait=5", "submit and wait", 200, "wait=5"},
		{"a wait that runs out", job.Running, false, "wait=5", "submit and wait", 202, "wait=5"},
		{"a wait of 0", job.Running, false, "wait=0", "submit", 202, "wait=0"},
		{"respond-async", job.Queued, false, "respond-async", "submit", 202, "respond-async"},
		{"both", job.Failed, false, "respond-async, wait=60", "submit and wait", 200, "respond-async, wait=60"},
		{"a replay of an unfinished job", job.Running, true, "", "submit", 202, ""},
		{"a replay of an ended job", job.Failed, true, "", "submit", 200, ""},
	} {
		f := newFake(t)
		f.snap.State, f.existing = tt.state, tt.existing
		var headers []string
		if tt.prefer != "" {
			headers = []string{"Prefer", tt.prefer}
		}
		w := f.ask("POST", "/v1/jobs", `{"queue":"sim","input":1}`, headers...)
		if w.Code != tt.status || w.Header().Get("Preference-Applied") != tt.applied || f.calls[0] != tt.call {
			t.Errorf("%s: %d %v %v", tt.rule, w.Code, w.Header(), f.calls)
		}
		if got := w.Header().Get("Idempotent-Replay") == "true"; got != tt.existing {
			t.Errorf("%s: replay: %v", tt.rule, got)
		}
	}
}

// A refusal of the engine has its status, and Retry-After where waiting helps.
func TestEngineRefusalsHaveStatus(t *testing.T) {
	t.Parallel()
	full := job.Errorf(job.QueueFull, "the queue sim is full")
	full.RetryAfter = 3 * time.Second
	for _, tt := range []struct {
		err        error
		status     int
		retryAfter string
	}{
		{full, 503, "3"},
		{job.Errorf(job.UnknownQueue, "there is no queue"), 404, ""},
		{job.Errorf(job.IdempotencyMismatch, "another body"), 422, ""},
		{job.Errorf(job.NoSpace, "the disk is full"), 503, "1"},
	} {
		f := newFake(t)
		f.err = tt.err
		w := f.ask("POST", "/v1/jobs", `{"queue":"sim","input":1}`)
		checkProblem(t, tt.err.Error(), w.Code, w.Body.Bytes(), tt.status, job.CodeOf(tt.err), "")
		if got := w.Header().Get("Retry-After"); got != tt.retryAfter {
			t.Errorf("%v: Retry-After %q", tt.err, got)
		}
	}
}

// An executor's refusal of the input points into the request.
func TestInputRefusalPointsIntoRequest(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.err = &job.Error{Code: job.Invalid, Message: "messages must be a list", Field: "/messages"}
	w := f.ask("POST", "/v1/jobs", `{"queue":"sim","input":{"messages":1}}`)
	checkProblem(t, "refused input", w.Code, w.Body.Bytes(), 400, job.Invalid, "/input/messages")
}

// A server that stops answers a submit with a wait with the current job. Where the job is
// unknown, the error is that the server is stopping.
func TestStopAnswersSubmitWithWait(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err    error
		status int
	}{
		{nil, 202}, {job.Errorf(job.NotFound, "there is no such job"), 503},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.err = tt.err
			f.waits = func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}
			stopping, stop := context.WithCancel(t.Context())
			time.AfterFunc(5*time.Second, stop)
			w := newRecorder()
			f.handlerUntil(stopping).ServeHTTP(w, request("POST", "/v1/jobs", `{"queue":"sim","input":1}`, "Prefer", "wait=60"))
			if w.Code != tt.status || f.calls[1] != "get "+f.request.ID.String() {
				t.Errorf("%d %s %v", w.Code, w.text(), f.calls)
			}
		})
	}
}

// A body that is far too large is refused by its length, before any of it is read.
func TestOversizedSubmitIsNotRead(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	r := request("POST", "/v1/jobs", "")
	r.Body, r.ContentLength = unreadable{t}, job.LargestInput+job.MaxEnvelope+1
	w := newRecorder()
	f.handler().ServeHTTP(w, r)
	checkProblem(t, "oversized", w.Code, w.Body.Bytes(), 413, job.TooLarge, "")
}

type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, nil
}

func (u unreadable) Close() error { return nil }

// For any body the response is a job or a problem, and only a valid one reaches the
// engine.
func FuzzSubmit(f *testing.F) {
	for _, seed := range []string{
		`{"queue":"sim","input":{}}`, `{"queue":"sim","input":1,"delay_s":1e9}`, `{"queue":"sim","input":1,"metadata":{"a":"b"}}`,
		`{"queue":"sim","input":1,"run_at":"2030-01-31T09:00:00Z","timeouts":{"lease_s":3}}`, `{}`, `null`, `{"queue":"sim","input":"\ud83d"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		fake := newFake(t)
		w := fake.ask("POST", "/v1/jobs", body)
		switch {
		case w.Code == 202 && len(fake.calls) == 1 && json.Valid(fake.request.Input):
		case w.Code >= 400 && w.Code < 500 && len(fake.calls) == 0:
			var p api.Problem
			if json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Code == "" || strings.TrimSpace(p.Detail) == "" {
				t.Errorf("no problem: %s", w.Body)
			}
		default:
			t.Errorf("%d %s %v", w.Code, w.Body, fake.calls)
		}
	})
}
