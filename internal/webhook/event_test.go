package webhook

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func endedJob(t *testing.T, state job.State) *job.Job {
	t.Helper()
	id, err := job.ParseID("job_06b8ttc7vhs7b7rqdk0ch5fbjr")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 30, 10, 0, 0, 123_456_789, time.FixedZone("", 3600))
	return &job.Job{
		ID: id, Queue: "ocr", Key: "team <7>", State: state, Attempt: 2, MaxAttempts: 4,
		Owner: job.Owner{Tenant: "shop", User: "ann"}, Metadata: map[string]string{"order": "17", "a": "b"},
		CreatedAt: at, StartedAt: at.Add(time.Second), FinishedAt: at.Add(time.Minute), ExpiresAt: at.Add(time.Hour),
		Refs: []string{"a secret reference"},
	}
}

func TestEvent(t *testing.T) {
	t.Parallel()
	j := endedJob(t, job.Succeeded)
	j.Usage = json.RawMessage(`{"total_tokens":3}`)
	got := string(Event(j, &job.Result{ContentType: "application/json", Body: []byte(`{ "text": "<b>" }`)}, "https://jobs.example.com/"))
	want := `{"type":"job.succeeded","timestamp":"2026-11-30T09:01:00.123Z","data":{` +
		`"id":"job_06b8ttc7vhs7b7rqdk0ch5fbjr","object":"job","queue":"ocr","status":"succeeded","key":"team <7>","attempt":2,"max_attempts":4,` +
		`"output_text":null,"result":{"text":"<b>"},"error":null,"usage":{"total_tokens":3},"metadata":{"a":"b","order":"17"},` +
		`"created_at":"2026-11-30T09:00:00.123Z","started_at":"2026-11-30T09:00:01.123Z","finished_at":"2026-11-30T09:01:00.123Z","expires_at":"2026-11-30T10:00:00.123Z",` +
		`"urls":{"self":"https://jobs.example.com/v1/jobs/job_06b8ttc7vhs7b7rqdk0ch5fbjr","output":"https://jobs.example.com/v1/jobs/job_06b8ttc7vhs7b7rqdk0ch5fbjr/output","result":"https://jobs.example.com/v1/jobs/job_06b8ttc7vhs7b7rqdk0ch5fbjr/result"}}}`
	if got != want {
		t.Errorf("the event is\n%s\nwant\n%s", got, want)
	}
}

// decoded is an event as a receiver reads it.
type decoded struct {
	Type      string
	Timestamp time.Time
	Data      struct {
		Status     string
		OutputText *string         `json:"output_text"`
		Result     json.RawMessage `json:"result"`
		Error      *job.Failure
		Usage      json.RawMessage
		Metadata   map[string]string
		StartedAt  *time.Time `json:"started_at"`
		URLs       map[string]string
	}
}

func decode(t *testing.T, body []byte) (d decoded) {
	t.Helper()
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatalf("%v in %.200s", err, body)
	}
	if len(body) > MaxEvent {
		t.Errorf("the event has %d bytes", len(body))
	}
	return d
}

func TestEventOfEachEnd(t *testing.T) {
	t.Parallel()
	for i, state := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Expired} {
		j := endedJob(t, state)
		j.StartedAt, j.Metadata = time.Time{}, nil
		if state == job.Failed {
			j.Failure = &job.Failure{Code: "worker_lost", Message: "The worker is gone.", Attempt: 2}
		}
		d := decode(t, Event(j, nil, ""))
		if d.Type != job.EventNames()[i] || d.Type != "job."+d.Data.Status || !d.Timestamp.Equal(j.FinishedAt.Truncate(time.Millisecond)) {
			t.Errorf("%v: %+v", state, d)
		}
		if (d.Data.Error != nil) != (state == job.Failed) || d.Data.StartedAt != nil || d.Data.Metadata == nil || string(d.Data.Result) != "null" {
			t.Errorf("%v: %+v", state, d.Data)
		}
		if self := d.Data.URLs["self"]; self != "/v1/jobs/"+j.ID.String() {
			t.Errorf("without a base the URL is %s", self)
		}
	}
}

func TestResultInAnEvent(t *testing.T) {
	t.Parallel()
	long := `"` + strings.Repeat("a", MaxEvent) + `"`
	nearly := `"` + strings.Repeat("a", MaxEvent-300) + `"` // fits alone, and not with the rest
	for _, c := range []struct{ kind, body, result, text string }{
		{"application/json", `[1, 2]`, `[1,2]`, ""},
		{"application/problem+json; charset=utf-8", `{}`, `{}`, ""},
		{"application/json", `{"cut`, "null", ""},
		{"application/json", long, "null", ""},
		{"application/json", nearly, "null", ""},
		{"text/plain; charset=utf-8", "two\nlines", "null", "two\nlines"},
		{"text/plain", strings.Repeat("\x01", MaxEvent/2), "null", ""}, // six times as long in JSON
		{"text/plain", "\xff", "null", ""},
		{"image/png", "\x89PNG", "null", ""},
		{"", "{}", "null", ""},
	} {
		d := decode(t, Event(endedJob(t, job.Succeeded), &job.Result{ContentType: c.kind, Body: []byte(c.body)}, "https://jobs.example.com"))
		text := ""
		if d.Data.OutputText != nil {
			text = *d.Data.OutputText
		}
		if string(d.Data.Result) != c.result || text != c.text || d.Data.URLs["result"] == "" {
			t.Errorf("%s %.20q: %s, %q", c.kind, c.body, d.Data.Result, text)
		}
	}
}

// Whatever a job has, its event is bounded and valid.
func TestEventIsBounded(t *testing.T) {
	t.Parallel()
	j := endedJob(t, job.Failed)
	j.Metadata, j.Key = map[string]string{}, strings.Repeat("\x01", job.MaxKey)
	for i := range job.MaxMetadata {
		j.Metadata[fmt.Sprintf("%02d%s", i, strings.Repeat("\x01", job.MaxMetaKey-2))] = strings.Repeat("\x01", job.MaxMetaValue)
	}
	j.Failure = &job.Failure{Code: "exit", Message: strings.Repeat("é", 1<<20)}
	j.Usage = json.RawMessage(`"` + strings.Repeat("a", 1<<20) + `"`)
	d := decode(t, Event(j, nil, "https://jobs.example.com"))
	if len(d.Data.Error.Message) > maxMessage+3 || string(d.Data.Usage) != "null" || len(d.Data.Metadata) != job.MaxMetadata {
		t.Errorf("%+v", d.Data)
	}
	j.Usage = json.RawMessage(`{"cut`)
	decode(t, Event(j, nil, ""))
}
