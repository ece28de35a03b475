package jobs

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Each job of a batch reaches the engine with all of its fields, like a single submit.
func TestBatchReachesEngineComplete(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	second := `{"queue":"sim","input":{"a": [1]},"priority":2,"key":"ann","max_attempts":7,"metadata":{"a":"1"},"idempotency_key":"once"}`
	w := f.ask("POST", "/v1/jobs/batch", `{"jobs":[ {"queue":"sim","input":1} , `+second+`]}`, "X-User-ID", "ann")
	want := []engine.Request{
		{Owner: job.Owner{User: "ann"}, Queue: "sim", Input: []byte(`1`)},
		{
			Owner: job.Owner{User: "ann"}, Queue: "sim", Key: "ann", Priority: 2, Input: []byte(`{"a": [1]}`), MaxAttempts: 7,
			Metadata: map[string]string{"a": "1"}, IdempotencyKey: "once", Hash: sha256.Sum256([]byte(second)),
		},
	}
	if !reflect.DeepEqual(f.batch, want) || f.atomic {
		t.Errorf("got  %+v\nwant %+v", f.batch, want)
	}
	if w.Code != 200 || w.Header().Get("Preference-Applied") != "" || w.Header().Get("Idempotent-Replay") != "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// Each job of a batch has a key of its own, made from the key in the header and the job's
// place.
func TestBatchKeyGivesEachJobAKey(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	item := `{"queue":"sim","input":1}`
	f.ask("POST", "/v1/jobs/batch", `{"jobs":[`+item+`,`+item+`],"atomic":true}`, "Idempotency-Key", "import", "Prefer", "respond-async")
	if len(f.batch) != 2 || !f.atomic {
		t.Fatalf("%+v", f.batch)
	}
	for i, r := range f.batch {
		if r.IdempotencyKey != fmt.Sprintf("import/%d", i) || r.Hash != sha256.Sum256([]byte(item)) {
			t.Errorf("job %d: %q %x", i, r.IdempotencyKey, r.Hash)
		}
	}
}

// A job that is refused, by the API or by the engine, is refused alone, with a pointer
// into the batch. The others are stored, and all results keep their places.
func TestBatchReportsEachJob(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	full := job.Errorf(job.KeyFull, "the key has as many waiting jobs as it may")
	full.RetryAfter = 1500 * time.Millisecond
	f.answers = []engine.SubmitResult{
		{Snapshot: f.snap},
		{Err: full},
		{Err: &job.Error{Code: job.Invalid, Message: "messages must be a list", Field: "/messages"}},
		{Err: fmt.Errorf("a secret")},
	}
	w := f.ask("POST", "/v1/jobs/batch", `{"jobs":[
		{"queue":"sim","input":"stored"},
		{"queue":"sim","input":"refused by type","priority":"high"},
		{"queue":"sim","input":"refused by bound","priority":10},
		{"queue":"sim","input":"refused for its key"},
		7,
		{"queue":"sim","input":"refused for its input"},
		{"queue":"sim","input":"refused by its name","idempotency_key":"\u00e9"},
		{"queue":"sim","input":"failed"}]}`)
	if w.Code != 200 || len(f.batch) != 4 || string(f.batch[3].Input) != `"failed"` {
		t.Fatalf("%d %s: %+v", w.Code, w.Body, f.batch)
	}
	checkGolden(t, "batch.json", w.Body.Bytes())
}

// An atomic batch with a refused job is refused as a whole, with a pointer to the job.
// The engine is not asked if the request alone shows the fault.
func TestAtomicBatchIsRefusedWhole(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	w := f.ask("POST", "/v1/jobs/batch", `{"atomic":true,"jobs":[{"queue":"sim","input":1},{"queue":"sim"},{"queue":"sim","input":1,"priority":0}]}`)
	checkProblem(t, "by its fields", w.Code, w.Body.Bytes(), 400, job.Invalid, "/jobs/1/input")
	checkGolden(t, "batch_refused.json", w.Body.Bytes())
	if len(f.calls) > 0 {
		t.Errorf("the engine was called: %v", f.calls)
	}

	other := job.Errorf(job.BatchRefused, "another job of the batch was refused")
	f.answers = []engine.SubmitResult{{Err: other}, {Err: job.Errorf(job.QueueFull, "the queue is full")}, {Err: job.Errorf(job.IdempotencyMismatch, "another body")}}
	w = f.ask("POST", "/v1/jobs/batch", `{"atomic":true,"jobs":[{"queue":"sim","input":1},{"queue":"sim","input":1},{"queue":"sim","input":1}]}`)
	checkProblem(t, "by the engine", w.Code, w.Body.Bytes(), 503, job.QueueFull, "/jobs/1")
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Header().Get("Retry-After") == "" {
		t.Fatalf("%v %v", err, w.Header())
	}
	want := []api.ItemError{{Field: "/jobs/1", Status: 503, Code: job.QueueFull, Detail: "the queue is full"}, {Field: "/jobs/2", Status: 422, Code: job.IdempotencyMismatch, Detail: "another body"}}
	if !reflect.DeepEqual(p.Errors, want) {
		t.Errorf("%+v", p.Errors)
	}
}

// The list of refused jobs has a limit.
func TestAtomicErrorLimitsListedJobs(t *testing.T) {
	t.Parallel()
	w := newFake(t).ask("POST", "/v1/jobs/batch", `{"atomic":true,"jobs":[`+strings.Repeat(`{},`, 999)+`{}]}`)
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || len(p.Errors) != maxListed || p.Errors[19].Field != "/jobs/19/queue" {
		t.Errorf("%v %+v", err, p.Errors)
	}
}

// A batch whose jobs all exist already is a replay.
func TestReplayedBatchHasReplayHeader(t *testing.T) {
	t.Parallel()
	for _, replays := range []int{0, 1, 2} {
		f := newFake(t)
		f.answers = []engine.SubmitResult{{Snapshot: f.snap, Existing: replays > 0}, {Snapshot: f.snap, Existing: replays > 1}}
		w := f.ask("POST", "/v1/jobs/batch", `{"jobs":[{"queue":"sim","input":1},{"queue":"sim","input":1}]}`)
		if got := w.Header().Get("Idempotent-Replay") == "true"; got != (replays == 2) {
			t.Errorf("%d of 2 existed before: %v", replays, got)
		}
	}
}

func TestFailedBatchIsAnError(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.err = job.Errorf(job.ShuttingDown, "the server is stopping")
	w := f.ask("POST", "/v1/jobs/batch", oneJob)
	checkProblem(t, "stopping", w.Code, w.Body.Bytes(), 503, job.ShuttingDown, "")
}

// A batch may be larger than a single submit. It has a limit of its own, which is checked
// before the body is read.
func TestBatchHasOwnSizeLimit(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	item := `{"queue":"sim","input":"` + strings.Repeat("x", 1000) + `"}`
	if w := f.ask("POST", "/v1/jobs/batch", `{"jobs":[`+strings.Repeat(item+",", job.MaxBatch-1)+item+`]}`); w.Code != 200 || len(f.batch) != job.MaxBatch {
		t.Errorf("%d, %d jobs", w.Code, len(f.batch))
	}
	if &f.batch[0].Input[0] == &f.batch[1].Input[0] || cap(f.batch[0].Input) > 2000 {
		t.Error("a job's input holds the body of the whole batch")
	}
	r := request("POST", "/v1/jobs/batch", "")
	r.Body, r.ContentLength = unreadable{t}, job.LargestInput+job.MaxEnvelope+1
	w := newRecorder()
	f.handler().ServeHTTP(w, r)
	checkProblem(t, "oversized", w.Code, w.Body.Bytes(), 413, job.TooLarge, "")
}

// For any body, each of its jobs is stored or refused alone, or the whole batch is
// refused. Only valid jobs reach the engine.
func FuzzBatch(f *testing.F) {
	for _, seed := range []string{
		oneJob, `{"jobs":[{"queue":"sim","input":1,"idempotency_key":"a"},{"queue":7},null],"atomic":false}`,
		`{"atomic":true,"jobs":[{"queue":"sim","input":{}},{"nope":1}]}`, `{"jobs":[[[]],{"input":"\ud83d"}]}`, `{"jobs":{}}`, `{"jobs":[{"queue":"sim","input":1}]`, `[]`,
	} {
		f.Add(seed, "")
		f.Add(seed, "key")
	}
	f.Fuzz(func(t *testing.T, body, key string) {
		fake := newFake(t)
		r := request("POST", "/v1/jobs/batch", body)
		if key != "" {
			r.Header["Idempotency-Key"] = []string{key}
		}
		w := newRecorder()
		fake.handler().ServeHTTP(w, r)
		stored := 0
		switch {
		case w.Code >= 400 && w.Code < 500 && len(fake.calls) == 0:
			var p api.Problem
			if json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Code == "" || strings.TrimSpace(p.Detail) == "" {
				t.Errorf("no problem: %s", w.text())
			}
			return
		case w.Code == 200:
			var list struct {
				Data []struct{ Object, Code string }
			}
			if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
				t.Fatalf("%v: %s", err, w.text())
			}
			for _, item := range list.Data {
				if item.Object == "job" {
					stored++
				} else if item.Object != "error" || item.Code == "" {
					t.Errorf("no job and no problem: %s", w.text())
				}
			}
		default:
			t.Errorf("%d %s %v", w.Code, w.text(), fake.calls)
		}
		if stored != len(fake.batch) {
			t.Errorf("%d jobs are answered, %d were asked for: %s", stored, len(fake.batch), w.text())
		}
		for _, r := range fake.batch {
			if !json.Valid(r.Input) || r.Queue == "" {
				t.Errorf("%+v", r)
			}
		}
	})
}

// BenchmarkBatch is a batch of 100 jobs of 500 bytes, without the work of net/http and of
// the engine.
func BenchmarkBatch(b *testing.B) {
	item := []byte(`{"queue":"sim","key":"user-17","input":{"duration_ms":0,"echo":"` + strings.Repeat("x", 430) + `"}}`)
	body := append([]byte(`{"jobs":[`), bytes.Repeat(append(item, ','), 99)...)
	body = append(append(body, item...), "]}"...)
	f := newQuietFake(b)
	f.answers = make([]engine.SubmitResult, 100)
	for i := range f.answers {
		f.answers[i].Snapshot = f.snap
	}
	bench(b, f, request(http.MethodPost, "/v1/jobs/batch", "", "Content-Type", "application/json", "Idempotency-Key", "import"), body)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/job")
}
