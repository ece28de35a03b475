package webhook

import (
	"bytes"
	"encoding/json"
	"mime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// MaxEvent is the largest event, in bytes. A result that would make it larger is left out.
const MaxEvent = 64 << 10

const (
	maxUsage   = 4 << 10 // bytes of a usage inside an event
	maxMessage = 4 << 10 // bytes of a failure's sentence inside an event
)

// event is the body of a delivery.
type event struct {
	Type      string    `json:"type"`
	Timestamp timestamp `json:"timestamp"` // when the job ended
	Data      eventJob  `json:"data"`
}

// eventJob is the job object of the API, as far as it belongs to an end.
type eventJob struct {
	ID          string            `json:"id"`
	Object      string            `json:"object"`
	Queue       string            `json:"queue"`
	Status      string            `json:"status"`
	Key         string            `json:"key"`
	Attempt     int               `json:"attempt"`
	MaxAttempts int               `json:"max_attempts"`
	OutputText  *string           `json:"output_text"` // of a result that is text
	Result      json.RawMessage   `json:"result"`      // that is JSON
	Error       *job.Failure      `json:"error"`
	Usage       json.RawMessage   `json:"usage"`
	Metadata    map[string]string `json:"metadata"`
	CreatedAt   timestamp         `json:"created_at"`
	StartedAt   timestamp         `json:"started_at"`
	FinishedAt  timestamp         `json:"finished_at"`
	ExpiresAt   timestamp         `json:"expires_at"`
	URLs        urls              `json:"urls"`
}

type urls struct {
	Self   string `json:"self"`
	Output string `json:"output"`
	Result string `json:"result"`
}

// timestamp is a time as in the API: RFC 3339 in UTC with milliseconds, or null.
type timestamp time.Time

// MarshalJSON writes the time.
func (t timestamp) MarshalJSON() ([]byte, error) {
	at := time.Time(t)
	if at.IsZero() {
		return []byte("null"), nil
	}
	return at.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`), nil
}

// Event returns the event for the end of a job, in at most [MaxEvent] bytes. base is the URL at
// which the server is reached; without one the URLs in the event are paths. result may be nil.
//
// Event is a pure function: the same end always has the same bytes.
func Event(j *job.Job, result *job.Result, base string) []byte {
	self := strings.TrimSuffix(base, "/") + "/v1/jobs/" + j.ID.String()
	e := event{Type: j.State.Event(), Timestamp: timestamp(j.FinishedAt), Data: eventJob{
		ID: j.ID.String(), Object: "job", Queue: j.Queue, Status: j.State.String(), Key: j.Key,
		Attempt: j.Attempt, MaxAttempts: j.MaxAttempts, Error: boundedFailure(j.Failure), Metadata: j.Metadata,
		CreatedAt: timestamp(j.CreatedAt), StartedAt: timestamp(j.StartedAt), FinishedAt: timestamp(j.FinishedAt), ExpiresAt: timestamp(j.ExpiresAt),
		URLs: urls{Self: self, Output: self + "/output", Result: self + "/result"},
	}}
	if e.Data.Metadata == nil {
		e.Data.Metadata = map[string]string{}
	}
	if len(j.Usage) <= maxUsage && json.Valid(j.Usage) {
		e.Data.Usage = j.Usage
	}
	if result != nil && len(result.Body) < MaxEvent {
		e.Data.setResult(result)
		if body := encode(e); len(body) <= MaxEvent {
			return body
		}
		e.Data.Result, e.Data.OutputText = nil, nil
	}
	return encode(e)
}

// setResult puts a result into the event, if it is JSON or text.
func (d *eventJob) setResult(r *job.Result) {
	kind, _, err := mime.ParseMediaType(r.ContentType)
	switch {
	case err != nil:
	case (kind == "application/json" || strings.HasSuffix(kind, "+json")) && json.Valid(r.Body):
		d.Result = r.Body
	case strings.HasPrefix(kind, "text/") && utf8.Valid(r.Body):
		text := string(r.Body)
		d.OutputText = &text
	}
}

// boundedFailure returns a failure whose sentence has at most maxMessage bytes.
func boundedFailure(f *job.Failure) *job.Failure {
	if f == nil || len(f.Message) <= maxMessage {
		return f
	}
	short := *f
	short.Message = strings.ToValidUTF8(f.Message[:maxMessage], "") + "…"
	return &short
}

// encode writes JSON without the escapes for HTML, in one line.
func encode(value any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic("webhook: " + err.Error()) // every value here was checked
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
