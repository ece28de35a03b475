package client

import (
	"bytes"
	"encoding/json"
	"time"
)

// MarshalJSON writes a job as servers write it, field by field in their order: what
// there is not is null.
func (j Job) MarshalJSON() ([]byte, error) {
	written := writtenJob{
		ID: j.ID, Object: j.Object, Queue: j.Queue, Status: j.Status, Key: j.Key, Priority: j.Priority,
		Attempt: j.Attempt, MaxAttempts: j.MaxAttempts, AbandonAfterS: orNull(j.AbandonAfterS),
		QueuePosition: j.QueuePosition, HeldBackBy: j.HeldBackBy, EstimatedTimeSeconds: j.EstimatedTimeSeconds,
		Progress: j.Progress, Cursor: j.Cursor, Result: j.Result, Error: j.Error, Usage: j.Usage,
		Files: j.Files, Metadata: j.Metadata,
		CancelRequestedAt: moment(j.CancelRequestedAt), CreatedAt: moment(j.CreatedAt), RunAt: moment(j.RunAt),
		StartedAt: moment(j.StartedAt), FinishedAt: moment(j.FinishedAt), ExpiresAt: moment(j.ExpiresAt),
		PollAfterMS: orNull(j.PollAfterMS),
		URLs: writtenURLs{
			orNull(j.URLs.Self), orNull(j.URLs.Output), orNull(j.URLs.Events), orNull(j.URLs.Result), orNull(j.URLs.Cancel), orNull(j.URLs.Watch),
		},
	}
	if !j.brief {
		written.OutputText = &j.OutputText
	}
	if j.Files == nil {
		written.Files = []File{}
	}
	if j.Metadata == nil {
		written.Metadata = map[string]string{}
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // whoever writes the whole decides that
	err := enc.Encode(written)
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), err
}

// writtenJob is a job on the wire.
type writtenJob struct {
	ID                   string            `json:"id"`
	Object               string            `json:"object"`
	Queue                string            `json:"queue"`
	Status               Status            `json:"status"`
	Key                  string            `json:"key"`
	Priority             int               `json:"priority"`
	Attempt              int               `json:"attempt"`
	MaxAttempts          int               `json:"max_attempts"`
	AbandonAfterS        *float64          `json:"abandon_after_s"`
	QueuePosition        *int              `json:"queue_position"`
	HeldBackBy           HoldReason        `json:"held_back_by"`
	EstimatedTimeSeconds *float64          `json:"estimated_time_seconds"`
	Progress             Progress          `json:"progress"`
	OutputText           *string           `json:"output_text"`
	Cursor               int64             `json:"cursor"`
	Result               json.RawMessage   `json:"result"`
	Error                *Failure          `json:"error"`
	Usage                json.RawMessage   `json:"usage"`
	Files                []File            `json:"files"`
	Metadata             map[string]string `json:"metadata"`
	CancelRequestedAt    moment            `json:"cancel_requested_at"`
	CreatedAt            moment            `json:"created_at"`
	RunAt                moment            `json:"run_at"`
	StartedAt            moment            `json:"started_at"`
	FinishedAt           moment            `json:"finished_at"`
	ExpiresAt            moment            `json:"expires_at"`
	PollAfterMS          *int              `json:"poll_after_ms"`
	URLs                 writtenURLs       `json:"urls"`
}

// writtenURLs are a job's URLs on the wire.
type writtenURLs struct {
	Self   *string `json:"self"`
	Output *string `json:"output"`
	Events *string `json:"events"`
	Result *string `json:"result"`
	Cancel *string `json:"cancel"`
	Watch  *string `json:"watch"`
}

// orNull is nil for the zero value, which JSON has as null.
func orNull[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}

// moment is a time on the wire: in UTC, to the millisecond, or null.
type moment time.Time

// MarshalJSON writes it.
func (m moment) MarshalJSON() ([]byte, error) {
	t := time.Time(m)
	if t.IsZero() {
		return []byte("null"), nil
	}
	return t.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`), nil
}
