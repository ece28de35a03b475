package jobs

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// oneJob is a batch with one job.
const oneJob = `{"jobs":[{"queue":"sim","input":1}]}`

const jobPath = "/v1/jobs/job_000000000xr03001081g81860w"

// The names of the calls for many jobs are not ids of jobs.
func TestCallNameIsNotAnID(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"batch", "cancel", "retry", "delete"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			w := newFake(t).ask(method, "/v1/jobs/"+word, "")
			if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
				t.Errorf("%s of %s: %d with Allow %q", method, word, w.Code, w.Header().Get("Allow"))
			}
		}
	}
}

// The detail of a problem is enough to correct the request.
func TestRefusalNamesValidValues(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ rule, method, path, body, says string }{
		{"a wrong name", "POST", "/v1/jobs", `{"queu":"sim","input":1}`, "there are queue, input, "},
		{"a wrong name in an object", "POST", "/v1/jobs", `{"queue":"sim","input":1,"timeouts":{"run_hard":1}}`, "run_hard_s, "},
		{"a unit in a number", "POST", "/v1/jobs", `{"queue":"sim","input":1,"delay_s":"10s"}`, "delay_s\\\" must be a number"},
		{"a negative delay", "POST", "/v1/jobs", `{"queue":"sim","input":1,"delay_s":-1}`, "delay_s is 0 to 31622400 seconds"},
		{"no lease", "POST", "/v1/jobs", `{"queue":"sim","input":1,"timeouts":{"lease_s":0}}`, "\"lease_s is 1 to 3600 seconds"},
		{"an abandon timeout that is too short", "POST", "/v1/jobs", `{"queue":"sim","input":1,"abandon_after_s":10}`, "120 to 31622400 seconds"},
		{"an unescaped + in a time zone", "GET", "/v1/jobs?created_after=2030-01-31T09:00:00+01:00", ``, "+ is written %2B"},
		{"an invalid status", "GET", "/v1/jobs?status=done", ``, "scheduled, queued, parked, running"},
	} {
		if w := newFake(t).ask(tt.method, tt.path, tt.body); w.Code != 400 || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s: %d %s", tt.rule, w.Code, w.Body)
		}
	}
}

// A bad request is refused with a problem that has a code and an explanation. It does not reach
// the engine.
func TestBadRequestsStoreNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rule, method, path, body string
		headers                  []string
		status                   int
		code                     job.Code
	}{
		{"no body", "POST", "/v1/jobs", ``, nil, 400, job.Invalid},
		{"malformed JSON", "POST", "/v1/jobs", `{"queue":"sim","input":`, nil, 400, job.Invalid},
		{"two values", "POST", "/v1/jobs", `{"queue":"sim","input":1} 2`, nil, 400, job.Invalid},
		{"an oversized body", "POST", "/v1/jobs", `{"queue":"sim","input":"` + strings.Repeat("x", job.MaxInput+job.MaxEnvelope) + `"}`, nil, 413, job.TooLarge},
		{"invalid UTF-8", "POST", "/v1/jobs", "{\"queue\":\"sim\",\"input\":\"\xff\"}", nil, 400, job.Invalid},
		{"a NUL", "POST", "/v1/jobs", `{"queue":"sim","input":"\u0000"}`, nil, 400, job.Invalid},
		{"another Content-Type", "POST", "/v1/jobs", `{"queue":"sim","input":1}`, []string{"Content-Type", "text/plain"}, 415, api.UnsupportedMediaType},
		{"a bad Prefer", "POST", "/v1/jobs", `{"queue":"sim","input":1}`, []string{"Prefer", "wait=soon"}, 400, job.Invalid},
		{"a negative wait", "POST", "/v1/jobs", `{"queue":"sim","input":1}`, []string{"Prefer", "wait=-1"}, 400, job.Invalid},
		{"a wait that is too long", "POST", "/v1/jobs", `{"queue":"sim","input":1}`, []string{"Prefer", "wait=61"}, 400, job.Invalid},
		{"a parameter", "POST", "/v1/jobs?wait=1", `{"queue":"sim","input":1}`, nil, 400, job.Invalid},
		{"an empty Idempotency-Key", "POST", "/v1/jobs", `{"queue":"sim","input":1}`, []string{"Idempotency-Key", ""}, 400, job.Invalid},
		{"an unprintable Idempotency-Key", "POST", "/v1/jobs", `{"queue":"sim","input":1}`, []string{"Idempotency-Key", "a\tb"}, 400, job.Invalid},
		{"a long Idempotency-Key", "POST", "/v1/jobs", `{"queue":"sim","input":1}`, []string{"Idempotency-Key", strings.Repeat("k", 257)}, 400, job.Invalid},
		{"two Idempotency-Keys", "POST", "/v1/jobs", `{"queue":"sim","input":1}`, []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, 400, job.Invalid},
		{"a malformed user", "POST", "/v1/jobs", `{"queue":"sim","input":1}`, []string{"X-User-ID", "a\x01"}, 400, job.Invalid},
		{"a foreign page", "POST", "/v1/jobs", `{"queue":"sim","input":1}`, []string{"Origin", "https://evil.example"}, 403, job.Forbidden},
		{"a wrong method on jobs", "PUT", "/v1/jobs", `{}`, nil, 405, api.MethodNotAllowed},
		{"a wrong method on a job", "POST", jobPath, `{}`, nil, 405, api.MethodNotAllowed},
		{"a wrong method on cancel", "GET", jobPath + "/cancel", ``, nil, 405, api.MethodNotAllowed},
		{"a wrong method on queues", "DELETE", "/v1/queues/sim", ``, nil, 405, api.MethodNotAllowed},
		{"an unknown call", "POST", "/v1/jobs/batch/x", `{}`, nil, 404, job.NotFound},
		{"an id of another kind", "GET", "/v1/jobs/conv_000000000xr03001081g81860w", ``, nil, 404, job.NotFound},
		{"an invalid id", "GET", "/v1/jobs/7", ``, nil, 404, job.NotFound},
		{"an id in capitals", "DELETE", "/v1/jobs/JOB_000000000XR03001081G81860W", ``, nil, 404, job.NotFound},
		{"an id with another spelling of its last bits", "GET", "/v1/jobs/job_000000000xr03001081g81860x", ``, nil, 404, job.NotFound},
		{"a hostile id", "POST", "/v1/jobs/" + "%00%ff" + strings.Repeat("x", 1000) + "/retry", ``, nil, 404, job.NotFound},
		{"a cancel with a body", "POST", jobPath + "/cancel", `{"reason":"x"}`, nil, 400, job.Invalid},
		{"a retry with parameters", "POST", jobPath + "/retry?now=1", ``, nil, 400, job.Invalid},
		{"a delete with parameters", "DELETE", jobPath + "?force=1", ``, nil, 400, job.Invalid},
		{"a delete with a body that is not JSON", "DELETE", jobPath, `x`, nil, 400, job.Invalid},
		{"an unknown parameter of get", "GET", jobPath + "?wait=5", ``, nil, 400, job.Invalid},
		{"a bad Prefer of get", "GET", jobPath, ``, []string{"Prefer", "wait=1.5"}, 400, job.Invalid},
		{"a malformed query", "GET", "/v1/jobs?queue=%zz", ``, nil, 400, job.Invalid},
		{"an unknown filter", "GET", "/v1/jobs?owner=x", ``, nil, 400, job.Invalid},
		{"metadata without a name", "GET", "/v1/jobs?metadata.=x", ``, nil, 400, job.Invalid},
		{"metadata without a dot", "GET", "/v1/jobs?metadata=x", ``, nil, 400, job.Invalid},
		{"metadata given twice", "GET", "/v1/jobs?metadata.a=x&metadata.a=y", ``, nil, 400, job.Invalid},
		{"metadata with a name that is too long", "GET", "/v1/jobs?metadata." + strings.Repeat("n", 65) + "=x", ``, nil, 400, job.Invalid},
		{"metadata with a NUL in its name", "GET", "/v1/jobs?metadata.a%00=x", ``, nil, 400, job.Invalid},
		{"metadata with a name of invalid UTF-8", "GET", "/v1/jobs?metadata.%ff=x", ``, nil, 400, job.Invalid},
		{"an error code that is too long", "GET", "/v1/jobs?error_code=" + strings.Repeat("x", 65), ``, nil, 400, job.Invalid},
		{"a queue that is too long", "GET", "/v1/jobs?queue=" + strings.Repeat("x", 65), ``, nil, 400, job.Invalid},
		{"a key that is too long", "GET", "/v1/jobs?key=" + strings.Repeat("x", 257), ``, nil, 400, job.Invalid},
		{"an invalid time", "GET", "/v1/jobs?created_before=yesterday", ``, nil, 400, job.Invalid},
		{"a time without a zone", "GET", "/v1/jobs?created_after=2030-01-31T09:00:00", ``, nil, 400, job.Invalid},
		{"the field all in a query", "GET", "/v1/jobs?all=true", ``, nil, 400, job.Invalid},

		{"a change without a filter", "POST", "/v1/jobs/cancel", `{}`, nil, 400, job.Invalid},
		{"a change by empty metadata", "POST", "/v1/jobs/delete", `{"metadata":{}}`, nil, 400, job.Invalid},
		{"a change with all set to false", "POST", "/v1/jobs/retry", `{"all":false}`, nil, 400, job.Invalid},
		{"a change with all and a filter", "POST", "/v1/jobs/delete", `{"all":true,"queue":"sim"}`, nil, 400, job.Invalid},
		{"a change by an empty queue", "POST", "/v1/jobs/delete", `{"queue":""}`, nil, 400, job.Invalid},
		{"a change by an empty error code", "POST", "/v1/jobs/delete", `{"error_code":""}`, nil, 400, job.Invalid},
		{"a change by an empty status", "POST", "/v1/jobs/cancel", `{"status":""}`, nil, 400, job.Invalid},
		{"a change by an empty time", "POST", "/v1/jobs/cancel", `{"created_before":""}`, nil, 400, job.Invalid},
		{"a change by too much metadata", "POST", "/v1/jobs/cancel", `{"metadata":{"a":"` + strings.Repeat("x", 513) + `"}}`, nil, 400, job.Invalid},
		{"a change by an unknown filter", "POST", "/v1/jobs/cancel", `{"limit":7,"queue":"sim"}`, nil, 400, job.Invalid},
		{"a change without a body", "POST", "/v1/jobs/cancel", ``, nil, 400, job.Invalid},
		{"a change with a parameter", "POST", "/v1/jobs/cancel?queue=sim", `{"all":true}`, nil, 400, job.Invalid},
		{"a change with another Content-Type", "POST", "/v1/jobs/delete", `{"all":true}`, []string{"Content-Type", "text/plain"}, 415, api.UnsupportedMediaType},
		{"a change from a foreign page", "POST", "/v1/jobs/delete", `{"all":true}`, []string{"Origin", "https://evil.example"}, 403, job.Forbidden},

		{"a batch without a body", "POST", "/v1/jobs/batch", ``, nil, 400, job.Invalid},
		{"a batch without jobs", "POST", "/v1/jobs/batch", `{}`, nil, 400, job.Invalid},
		{"an empty batch", "POST", "/v1/jobs/batch", `{"jobs":[]}`, nil, 400, job.Invalid},
		{"a batch of null", "POST", "/v1/jobs/batch", `{"jobs":null}`, nil, 400, job.Invalid},
		{"a batch that is a list", "POST", "/v1/jobs/batch", `[]`, nil, 400, job.Invalid},
		{"a batch with invalid JSON after a bad job", "POST", "/v1/jobs/batch", `{"jobs":[{"queue":7},{]}`, nil, 400, job.Invalid},
		{"a batch of too many jobs", "POST", "/v1/jobs/batch", `{"jobs":[` + strings.Repeat(`{},`, job.MaxBatch) + `{}]}`, nil, 413, job.TooLarge},
		{"an unknown field of a batch", "POST", "/v1/jobs/batch", `{"jobs":[{}],"queue":"sim"}`, nil, 400, job.Invalid},
		{"a batch with a wait", "POST", "/v1/jobs/batch", oneJob, []string{"Prefer", "wait=5"}, 400, job.Invalid},
		{"a batch with a bad Prefer", "POST", "/v1/jobs/batch", oneJob, []string{"Prefer", "wait=soon"}, 400, job.Invalid},
		{"a batch with a parameter", "POST", "/v1/jobs/batch?atomic=true", oneJob, nil, 400, job.Invalid},
		{"a batch with another Content-Type", "POST", "/v1/jobs/batch", oneJob, []string{"Content-Type", "text/plain"}, 415, api.UnsupportedMediaType},
		{"a batch with an unprintable key", "POST", "/v1/jobs/batch", oneJob, []string{"Idempotency-Key", "a\tb"}, 400, job.Invalid},
		{"a batch with a key that is too long for its jobs", "POST", "/v1/jobs/batch", oneJob, []string{"Idempotency-Key", strings.Repeat("k", 253)}, 400, job.Invalid},
		{"a batch whose jobs have keys too", "POST", "/v1/jobs/batch", `{"jobs":[{"queue":"sim","input":1,"idempotency_key":"a"}]}`, []string{"Idempotency-Key", "b"}, 400, job.Invalid},
		{"a wrong method on a batch", "PUT", "/v1/jobs/batch", oneJob, nil, 405, api.MethodNotAllowed},
		{"a GET of a batch", "GET", "/v1/jobs/batch", ``, nil, 405, api.MethodNotAllowed},

		{"a pause with parameters", "POST", "/v1/queues/sim/pause?for=5", ``, nil, 400, job.Invalid},
		{"a pause with a body", "POST", "/v1/queues/sim/pause", `{"for_s":5}`, nil, 400, job.Invalid},
		{"a wrong method on a pause", "GET", "/v1/queues/sim/pause", ``, nil, 405, api.MethodNotAllowed},
		{"a filter given twice", "GET", "/v1/jobs?queue=a&queue=b", ``, nil, 400, job.Invalid},
		{"a filter of invalid UTF-8", "GET", "/v1/jobs?key=%ff", ``, nil, 400, job.Invalid},
		{"a filter with a NUL", "GET", "/v1/jobs?queue=a%00", ``, nil, 400, job.Invalid},
		{"an unknown status", "GET", "/v1/jobs?status=done", ``, nil, 400, job.Invalid},
		{"a limit of 0", "GET", "/v1/jobs?limit=0", ``, nil, 400, job.Invalid},
		{"a negative limit", "GET", "/v1/jobs?limit=-1", ``, nil, 400, job.Invalid},
		{"a limit that is too large", "GET", "/v1/jobs?limit=101", ``, nil, 400, job.Invalid},
		{"a limit that is not a number", "GET", "/v1/jobs?limit=NaN", ``, nil, 400, job.Invalid},
		{"an invalid list cursor", "GET", "/v1/jobs?after=7", ``, nil, 400, job.Invalid},
		{"a job as a list cursor", "GET", "/v1/jobs?after=job_000000000xr03001081g81860w", ``, nil, 400, job.Invalid},
		{"a list cursor of zeros", "GET", "/v1/jobs?after=page_00000000000000000000000000", ``, nil, 400, job.Invalid},
		{"an invalid output cursor", "GET", jobPath + "/output?after=x", ``, nil, 400, job.Invalid},
		{"a negative output cursor", "GET", jobPath + "/output?after=-1", ``, nil, 400, job.Invalid},
		{"an output cursor with a sign", "GET", jobPath + "/output?after=%2B1", ``, nil, 400, job.Invalid},
		{"an output cursor with zeros", "GET", jobPath + "/output?after=007", ``, nil, 400, job.Invalid},
		{"an enormous output cursor", "GET", jobPath + "/output?after=9223372036854775808", ``, nil, 400, job.Invalid},
		{"a done cursor of output", "GET", jobPath + "/output?after=3.done", ``, nil, 400, job.Invalid},
		{"a bad Prefer of output", "GET", jobPath + "/output", ``, []string{"Prefer", "wait="}, 400, job.Invalid},
		{"an invalid event cursor", "GET", jobPath + "/events?after=done", ``, nil, 400, job.Invalid},
		{"a bare done", "GET", jobPath + "/events?after=.done", ``, nil, 400, job.Invalid},
		{"a bad Last-Event-ID", "GET", jobPath + "/events", ``, []string{"Last-Event-ID", "three"}, 400, job.Invalid},
		{"an unknown parameter of events", "GET", jobPath + "/events?follow=1", ``, nil, 400, job.Invalid},
		{"a parameter of result", "GET", jobPath + "/result?x", ``, nil, 400, job.Invalid},
		{"a parameter of queues", "GET", "/v1/queues?name=sim", ``, nil, 400, job.Invalid},
		{"an unknown queue", "GET", "/v1/queues/nope", ``, nil, 404, job.UnknownQueue},
	} {
		f := newFake(t)
		w := f.ask(tt.method, tt.path, tt.body, tt.headers...)
		checkProblem(t, tt.rule, w.Code, w.Body.Bytes(), tt.status, tt.code, anyField)
		if len(f.calls) > 0 {
			t.Errorf("%s: the engine was called: %v", tt.rule, f.calls)
		}
	}
}

const anyField = "*"

func checkProblem(t *testing.T, rule string, gotStatus int, body []byte, status int, code job.Code, field string) {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Errorf("%s: %d, no problem: %s", rule, gotStatus, body)
		return
	}
	if gotStatus != status || p.Status != status || p.Code != code || p.Detail == "" || field != anyField && p.Field != field {
		t.Errorf("%s: %d %s; want %d %s %q", rule, gotStatus, body, status, code, field)
	}
}

// Each field of a submit has limits, and a refusal names the field.
func TestRefusalNamesBadField(t *testing.T) {
	t.Parallel()
	pairs := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"%d":""`, i))
		}
		return "{" + strings.Join(all, ",") + "}"
	}
	long := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	for _, tt := range []struct{ rule, field, body string }{
		{"no queue", "/queue", `"input":1`},
		{"a queue that is null", "/queue", `"queue":null,"input":1`},
		{"a queue that is not a string", "/queue", `"queue":7,"input":1`},
		{"a queue that is too long", "/queue", `"queue":` + long(65) + `,"input":1`},
		{"no input", "/input", `"queue":"sim"`},
		{"an input that is nested too deep", "/input" + strings.Repeat("/0", job.MaxDepth-1), `"queue":"sim","input":` + strings.Repeat("[", job.MaxDepth) + strings.Repeat("]", job.MaxDepth)},
		{"an unknown field", "/webhook", `"queue":"sim","input":1,"webhook":"http://x.example"`},
		{"an abandon timeout that is too short", "/abandon_after_s", `"queue":"sim","input":1,"abandon_after_s":119`},
		{"a negative abandon timeout", "/abandon_after_s", `"queue":"sim","input":1,"abandon_after_s":-1`},
		{"an abandon timeout that is too long", "/abandon_after_s", `"queue":"sim","input":1,"abandon_after_s":1e18`},
		{"an idempotency key in the body", "/idempotency_key", `"queue":"sim","input":1,"idempotency_key":"a"`},
		{"a field in the wrong case", "/Queue", `"Queue":"sim","input":1`},
		{"a field given twice", "/queue", `"queue":"sim","input":1,"queue":"sim"`},
		{"a priority of 0", "/priority", `"queue":"sim","input":1,"priority":0`},
		{"a priority of 10", "/priority", `"queue":"sim","input":1,"priority":10`},
		{"a negative priority", "/priority", `"queue":"sim","input":1,"priority":-3`},
		{"a priority with a fraction", "/priority", `"queue":"sim","input":1,"priority":1.5`},
		{"a priority that is NaN", "/priority", `"queue":"sim","input":1,"priority":NaN`},
		{"a priority that is too large", "/priority", `"queue":"sim","input":1,"priority":1e400`},
		{"a key that is too long", "/key", `"queue":"sim","input":1,"key":` + long(257)},
		{"an invalid time", "/run_at", `"queue":"sim","input":1,"run_at":"tomorrow"`},
		{"a time without a zone", "/run_at", `"queue":"sim","input":1,"run_at":"2030-01-31T09:00:00"`},
		{"a time that is too far away", "/run_at", `"queue":"sim","input":1,"run_at":"9999-01-31T09:00:00Z"`},
		{"a time and a delay", "/run_at", `"queue":"sim","input":1,"run_at":"2030-01-31T09:00:00Z","delay_s":1`},
		{"a negative delay", "/delay_s", `"queue":"sim","input":1,"delay_s":-1`},
		{"a delay that is too long", "/delay_s", `"queue":"sim","input":1,"delay_s":1e300`},
		{"a delay in words", "/delay_s", `"queue":"sim","input":1,"delay_s":"1s"`},
		{"no attempts", "/max_attempts", `"queue":"sim","input":1,"max_attempts":0`},
		{"too many attempts", "/max_attempts", `"queue":"sim","input":1,"max_attempts":101`},
		{"too many pairs", "/metadata", `"queue":"sim","input":1,"metadata":` + pairs(17)},
		{"a pair without a name", "/metadata", `"queue":"sim","input":1,"metadata":{"":"x"}`},
		{"a pair with a long name", "/metadata", `"queue":"sim","input":1,"metadata":{` + long(65) + `:"x"}`},
		{"a pair with a long value", "/metadata", `"queue":"sim","input":1,"metadata":{"x":` + long(513) + `}`},
		{"a pair that is a number", "/metadata/n", `"queue":"sim","input":1,"metadata":{"n":1}`},
		{"timeouts that are a number", "/timeouts", `"queue":"sim","input":1,"timeouts":5`},
		{"an unknown timeout", "/timeouts/run_s", `"queue":"sim","input":1,"timeouts":{"run_s":1}`},
		{"no lease", "/timeouts/lease_s", `"queue":"sim","input":1,"timeouts":{"lease_s":0}`},
		{"a lease that is too long", "/timeouts/lease_s", `"queue":"sim","input":1,"timeouts":{"lease_s":3601}`},
		{"a negative timeout", "/timeouts/queue_s", `"queue":"sim","input":1,"timeouts":{"queue_s":-0.5}`},
		{"a timeout that is too long", "/timeouts/idle_output_s", `"queue":"sim","input":1,"timeouts":{"idle_output_s":1e18}`},
		{"a soft limit past the hard one", "/timeouts/run_soft_s", `"queue":"sim","input":1,"timeouts":{"run_soft_s":20,"run_hard_s":10}`},
		{"a soft limit past the queue's hard one", "/timeouts/run_soft_s", `"queue":"sim","input":1,"timeouts":{"run_soft_s":301}`},
		{"an unknown retry field", "/retry/max", `"queue":"sim","input":1,"retry":{"max":1}`},
		{"a negative backoff", "/retry/backoff_s", `"queue":"sim","input":1,"retry":{"backoff_s":-1}`},
		{"an unknown choice", "/retry/after_output", `"queue":"sim","input":1,"retry":{"after_output":"maybe"}`},
		{"a choice in the wrong type", "/retry/on_timeout", `"queue":"sim","input":1,"retry":{"on_timeout":"yes"}`},
	} {
		f := newFake(t)
		w := f.ask("POST", "/v1/jobs", "{"+tt.body+"}")
		checkProblem(t, tt.rule, w.Code, w.Body.Bytes(), 400, job.Invalid, tt.field)
		if len(f.calls) > 0 {
			t.Errorf("%s: the engine was called: %v", tt.rule, f.calls)
		}
	}
}

// A policy for an unknown queue is refused as an unknown queue.
func TestPolicyForUnknownQueueIsRefused(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	w := f.ask("POST", "/v1/jobs", `{"queue":"nope","input":1,"retry":{}}`)
	checkProblem(t, "unknown queue", w.Code, w.Body.Bytes(), 404, job.UnknownQueue, "")
}

// A cursor past the end of a job's output is refused.
func TestCursorPastEndIsRefused(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/output?after=4", "/events?after=4", "/events?after=4.done"} {
		f := newFake(t)
		f.snap.Cursor = 3
		f.watch = func(int64) stream.Watcher { return &scriptedWatcher{updates: updatesOf(f.snap.Job)} }
		w := f.ask("GET", jobPath+path, "")
		checkProblem(t, path, w.Code, w.Body.Bytes(), 400, job.Invalid, "")
	}
}
