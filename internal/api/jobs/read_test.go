package jobs

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

var update = flag.Bool("update", false, "write the golden files anew")

// checkGolden compares a response with the golden file, so that the JSON only changes on
// purpose.
func checkGolden(t *testing.T, name string, body []byte) {
	t.Helper()
	var got bytes.Buffer
	if err := json.Indent(&got, body, "", "  "); err != nil {
		t.Fatalf("no JSON: %v: %s", err, body)
	}
	got.WriteByte('\n')
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s has changed; run with -update if it should:\ngot  %swant %s", name, got.Bytes(), want)
	}
}

// fullSnapshot returns a job with all of its fields set.
func fullSnapshot() engine.Snapshot {
	j := testJob()
	j.Key, j.Priority, j.State, j.Attempt, j.Cursor = "ann", 2, job.Succeeded, 2, 17
	j.Progress = job.Progress{Percent: 99.5, Status: "Formatting"}
	j.Failure = &job.Failure{Code: "upstream_error", Message: `it said "no"`, Retryable: true, Attempt: 1}
	j.Usage = json.RawMessage(`{"total_tokens":7}`)
	j.Metadata = map[string]string{"b": "2", "a": "1"}
	j.Files = []job.File{{Name: "scan \"1\".png", ContentType: "image/png", Size: 17, SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}, {Name: "b", SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}
	j.Policy.Timeouts.Abandon = 150 * time.Second
	j.CancelRequestedAt, j.StartedAt, j.FinishedAt, j.ExpiresAt = moment.Add(3*time.Second), moment.Add(time.Second), moment.Add(time.Minute), moment.Add(24*time.Hour)
	return engine.Snapshot{Job: j, Text: "Hé\n", Result: &job.Result{ContentType: "application/json; charset=utf-8", Body: []byte(`{"answer":42}`)}}
}

func TestJobMatchesGolden(t *testing.T) {
	t.Parallel()
	waiting := newFake(t)
	waiting.snap.Position, waiting.snap.Estimate = 3, 12345*time.Millisecond
	checkGolden(t, "job_queued.json", waiting.ask("GET", jobPath, "").Body.Bytes())
	ended := newFake(t)
	ended.snap = fullSnapshot()
	checkGolden(t, "job_ended.json", ended.ask("GET", jobPath, "").Body.Bytes())
}

func TestListMatchesGolden(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.page, f.next = []job.Job{fullSnapshot().Job, testJob()}, anID
	checkGolden(t, "list.json", f.ask("GET", "/v1/jobs", "").Body.Bytes())
	f.page, f.next = nil, job.ID{}
	if got := f.ask("GET", "/v1/jobs", "").Body.String(); got != `{"object":"list","data":[],"next":null}` {
		t.Errorf("an empty list: %s", got)
	}
}

func TestOutputMatchesGolden(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.snap.State, f.snap.Cursor = job.Running, 5
	f.entries = []job.Entry{
		entry(1, job.KindText, "a \"b\"\n\x01"), entry(2, job.KindJSON, `{"x": [1]}`), entry(3, job.KindLog, "line \xff"),
		entry(4, job.KindProgress, `{"percent":50,"status":"half"}`), entry(5, job.KindAttempt, `{"attempt":2}`),
	}
	checkGolden(t, "output.json", f.ask("GET", jobPath+"/output", "").Body.Bytes())
}

func TestQueuesMatchGolden(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	checkGolden(t, "queues.json", f.ask("GET", "/v1/queues", "").Body.Bytes())
	checkGolden(t, "queue.json", f.ask("GET", "/v1/queues/sim", "").Body.Bytes())
}

// A job includes its result only where that is short JSON.
func TestSmallJSONResultsAreInline(t *testing.T) {
	t.Parallel()
	big := `"` + strings.Repeat("x", job.MaxInline-1) + `"`
	for _, tt := range []struct {
		rule, kind, body string
		inline           bool
	}{
		{"JSON", "application/json", `{"a":1}`, true},
		{"a kind of JSON", "application/ld+json", `{"a":1}`, true},
		{"text", "text/plain", `1`, false},
		{"no type", "", `1`, false},
		{"invalid JSON with a JSON type", "application/json", `{"a":`, false},
		{"nothing", "application/json", ``, false},
		{"a byte over the limit", "application/json", big, false},
		{"the longest inline result", "application/json", big[:1] + big[2:], true},
	} {
		f := newFake(t)
		f.snap.State = job.Succeeded
		f.snap.Result = &job.Result{ContentType: tt.kind, Body: []byte(tt.body)}
		var got struct{ Result json.RawMessage }
		if err := json.Unmarshal(f.ask("GET", jobPath, "").Body.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v", tt.rule, err)
		}
		if want := map[bool]string{true: tt.body, false: "null"}[tt.inline]; string(got.Result) != want {
			t.Errorf("%s: %.50s", tt.rule, got.Result)
		}
	}
}

func TestPollAfterFollowsEstimate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		state    job.State
		estimate time.Duration
		want     string
	}{
		{job.Queued, 0, "1000"}, {job.Running, time.Minute, "5000"}, {job.Running, 4 * time.Second, "2000"},
		{job.Running, time.Millisecond, "250"}, {job.Failed, 0, "null"},
	} {
		f := newFake(t)
		f.snap.State, f.snap.Estimate = tt.state, tt.estimate
		if got := f.ask("GET", jobPath, "").Body.String(); !strings.Contains(got, `"poll_after_ms":`+tt.want+",") {
			t.Errorf("%v, %v: %s", tt.state, tt.estimate, got)
		}
	}
}

func TestGetWaitsForEnd(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	w := f.ask("GET", jobPath, "", "Prefer", "wait=7, respond-async")
	if w.Code != 200 || f.wait != 7*time.Second || w.Header().Get("Preference-Applied") != "respond-async, wait=7" || w.Header().Get("Vary") != "Prefer" {
		t.Errorf("%d %v %v", w.Code, f.wait, w.Header())
	}
	f = newFake(t)
	f.ask("GET", jobPath+"/output?after=0", "", "Prefer", "wait=60")
	if f.wait != time.Minute {
		t.Errorf("output waited %v", f.wait)
	}
}

// A server that stops answers its long-polls with the current state.
func TestStopAnswersLongPolls(t *testing.T) {
	t.Parallel()
	for _, path := range []string{jobPath, jobPath + "/output"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.waits = func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}
			stopping, stop := context.WithCancel(t.Context())
			time.AfterFunc(5*time.Second, stop)
			w := newRecorder()
			f.handlerUntil(stopping).ServeHTTP(w, request("GET", path, "", "Prefer", "wait=60"))
			if w.Code != 200 {
				t.Errorf("%s: %d %s", path, w.Code, w.Body.String())
			}
		})
	}
}

// The cursor of output is the number of the last entry, or the cursor of the request.
func TestOutputCursorIsLastEntry(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.snap.Cursor = 9
	for _, tt := range []struct {
		entries []job.Entry
		want    int64
	}{
		{nil, 4}, {[]job.Entry{entry(5, job.KindText, "x"), entry(6, job.KindText, "y")}, 6},
	} {
		f.entries = tt.entries
		got := f.ask("GET", jobPath+"/output?after=4", "").Body.String()
		if f.after != 4 || !strings.HasSuffix(got, fmt.Sprintf(`],"cursor":%d}`, tt.want)) {
			t.Errorf("after %d: %s", f.after, got)
		}
	}
}

// A result is served unchanged, and never runs as a page of the server.
func TestResultIsServedUnchanged(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]string{"text/html": "text/html", "": "application/octet-stream", "a/b\r\nX-Evil: 1": ""} {
		f := newFake(t)
		f.res = job.Result{ContentType: kind, Body: []byte(strings.Repeat("<b>", 100_000))}
		w := f.ask("GET", jobPath+"/result", "")
		h := w.Header()
		if w.Code != 200 || w.Body.String() != string(f.res.Body) || want != "" && h.Get("Content-Type") != want || h.Get("X-Evil") != "" {
			t.Errorf("%q: %d %v", kind, w.Code, h)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("%q: %v", kind, h)
		}
	}
}

// A result is read and written in pieces, which count for its reader until it has read them. A
// result that disappears in between breaks the connection.
func TestResultIsReadInPieces(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.res = job.Result{Body: bytes.Repeat([]byte("0123456789"), resultPiece/4)}
	w := f.ask("GET", jobPath+"/result", "")
	if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), f.res.Body) || f.resLimit > resultPiece || len(f.calls) != 3 {
		t.Errorf("%d, %d bytes, %d reads of up to %d", w.Code, w.Body.Len(), len(f.calls), f.resLimit)
	}
	if w := f.ask("HEAD", jobPath+"/result", ""); w.Header().Get("Content-Length") != strconv.Itoa(len(f.res.Body)) || len(f.calls) != 4 {
		t.Errorf("HEAD: %v, %d reads", w.Header(), len(f.calls))
	}
}

// Long responses count for their caller while a slow client reads them: past the caller's bound
// one more is refused, and the bytes are given back.
func TestLongResponsesAreBoundedByCaller(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.gate = &gate.Gate{Bodies: api.NewBodies(8<<20, resultPiece+1000)}
	f.res = job.Result{Body: make([]byte, resultPiece)}
	for range job.MaxListPage {
		j := testJob()
		j.Metadata = map[string]string{"a": strings.Repeat("x", 512)}
		f.page = append(f.page, j)
	}
	f.entries = []job.Entry{{Seq: 1, Kind: job.KindText, Data: bytes.Repeat([]byte("x"), 100_000)}}
	for range 2 {
		held, err := f.gate.ReserveResponse(api.Caller{Address: "127.0.0.1"}, resultPiece)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{jobPath + "/result", jobPath + "/output", "/v1/jobs"} {
			if w := f.ask("GET", path, ""); w.Code != 429 || w.Header().Get("Retry-After") == "" {
				t.Errorf("%s beside as much as one caller may hold: %d %.100s", path, w.Code, w.Body)
			}
		}
		held()
		for _, path := range []string{jobPath + "/result", jobPath + "/output", "/v1/jobs"} {
			if w := f.ask("GET", path, ""); w.Code != 200 {
				t.Errorf("%s: %d %.100s", path, w.Code, w.Body)
			}
		}
	}
}

func TestMissingResultIsAnError(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		state  job.State
		code   job.Code
		failed string
	}{
		{job.Running, job.NotFinished, ""},
		{job.Failed, job.Conflict, `"error":{"code":"upstream_error"`},
		{job.Cancelled, job.Conflict, ""},
		{job.Expired, job.Conflict, ""},
	} {
		f := newFake(t)
		f.resErr = job.Errorf(job.NotFinished, "the job has not ended")
		f.snap.State = tt.state
		if tt.failed != "" {
			f.snap.Failure = fullSnapshot().Failure
		}
		w := f.ask("GET", jobPath+"/result", "")
		checkProblem(t, tt.state.String(), w.Code, w.Body.Bytes(), 409, tt.code, "")
		if !strings.Contains(w.Body.String(), tt.failed) {
			t.Errorf("%s: %s", tt.state, w.Body)
		}
	}
}

// The status is 202 while the job runs, and 200 once it has ended.
func TestChangeReturnsStatusOfJob(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method, path string
		state        job.State
		status       int
	}{
		{"POST", "/cancel", job.Running, 202}, {"POST", "/cancel", job.Cancelled, 200}, {"POST", "/cancel", job.Succeeded, 200},
		{"POST", "/retry", job.Queued, 202}, {"DELETE", "", job.Queued, 204},
	} {
		for _, body := range []string{"", "{}"} {
			f := newFake(t)
			f.snap.State = tt.state
			w := f.ask(tt.method, jobPath+tt.path, body)
			if w.Code != tt.status || len(f.calls) != 1 {
				t.Errorf("%s %s of a %s job: %d %v", tt.method, tt.path, tt.state, w.Code, f.calls)
			}
			if w.Code == 204 && w.Body.Len() > 0 {
				t.Errorf("a body: %s", w.Body)
			}
		}
	}
}

func TestRefusedChangeIsAProblem(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.err = job.Errorf(job.NotRetryable, "a succeeded job is not tried again")
	w := f.ask("POST", jobPath+"/retry", "")
	checkProblem(t, "retry", w.Code, w.Body.Bytes(), 409, job.NotRetryable, "")
}
