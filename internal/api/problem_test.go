package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Every code has a status. Each error that waiting may cure has Retry-After.
func TestEveryCodeHasStatus(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code       job.Code
		status     int
		retryAfter string
	}{
		{job.Invalid, 400, ""},
		{job.BadToken, 401, ""},
		{job.Forbidden, 403, ""},
		{job.NotFound, 404, ""},
		{job.UnknownQueue, 404, ""},
		{MethodNotAllowed, 405, ""},
		{RequestTimeout, 408, ""},
		{job.Conflict, 409, ""},
		{job.NotFinished, 409, ""},
		{job.NotRetryable, 409, ""},
		{job.LeaseLost, 409, ""},
		{job.BatchRefused, 409, ""},
		{job.TooLarge, 413, ""},
		{UnsupportedMediaType, 415, ""},
		{job.IdempotencyMismatch, 422, ""},
		{job.Internal, 500, ""},
		{job.KeyFull, 429, "1"},
		{job.QueueFull, 503, "1"},
		{job.Overloaded, 503, "1"},
		{job.NoSpace, 503, "1"},
		{job.ShuttingDown, 503, "1"},
		{job.Unavailable, 503, "1"},
	} {
		w := httptest.NewRecorder()
		WriteProblem(w, job.Errorf(tt.code, "a sentence"))
		if w.Code != tt.status || w.Header().Get("Retry-After") != tt.retryAfter {
			t.Errorf("%s: %d with Retry-After %q, want %d with %q", tt.code, w.Code, w.Header().Get("Retry-After"), tt.status, tt.retryAfter)
		}
	}
}

func TestWriteProblemWritesJSON(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	err := job.Wrapf(job.QueueFull, errors.New("secret"), "the queue is full")
	err.RetryAfter, err.Field = 1500*time.Millisecond, "/queue"
	WriteProblem(w, fmt.Errorf("wrapped: %w", err))
	const want = `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"the queue is full","code":"queue_full","field":"/queue"}`
	if got := w.Body.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q", got)
	}
	if got := w.Header().Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q, want it rounded up", got)
	}
}

// An error that is not a job.Error becomes a 500 that does not reveal its cause.
func TestProblemHidesUnknownError(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	WriteProblem(w, errors.New("the password is hunter2"))
	if w.Code != 500 || strings.Contains(w.Body.String(), "hunter2") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestProblemIncludesFailureOfJob(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	WriteProblem(w, &JobFailed{
		Refusal: job.Errorf(job.Conflict, "the job failed"),
		Failure: &job.Failure{Code: "upstream_error", Message: "no", Attempt: 4},
	})
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if p.Code != job.Conflict || p.Error == nil || p.Error.Code != "upstream_error" {
		t.Errorf("%+v", p)
	}
}

// The problem of a batch is that of its first element. It lists the errors of all elements.
func TestBatchErrorListsItems(t *testing.T) {
	t.Parallel()
	first, second := job.Errorf(job.UnknownQueue, "no queue"), job.Errorf(job.KeyFull, "full")
	first.Field, second.Field = "/jobs/1", "/jobs/7"
	w := httptest.NewRecorder()
	WriteProblem(w, &BatchError{First: first, Errors: []ItemError{ItemErrorOf(first), ItemErrorOf(second)}})
	const want = `{"type":"about:blank","title":"Not Found","status":404,"detail":"no queue","code":"unknown_queue","field":"/jobs/1","errors":[` +
		`{"field":"/jobs/1","status":404,"code":"unknown_queue","detail":"no queue"},{"field":"/jobs/7","status":429,"code":"key_full","detail":"full"}]}`
	if got := w.Body.String(); w.Code != 404 || got != want {
		t.Errorf("%d %s\nwant %s", w.Code, got, want)
	}
}
