package client

import (
	"bytes"
	"encoding/json"
	"time"
)

// MarshalJSON encodes a job as servers do: the same fields in the same order, with null
// for a missing value.
func (j Job) MarshalJSON() ([]byte, error) {
	written := wireJob{
		ID: j.ID, Object: j.Object, Queue: j.Queue, Status: j.Status, Key: j.Key, Priority: j.Priority,
		Attempt: j.Attempt, MaxAttempts: j.MaxAttempts, AbandonAfterS: nilIfZero(j.AbandonAfterS),
		QueuePosition: j.QueuePosition, HeldBackBy: j.HeldBackBy, Resource: j.Resource, EstimatedTimeSeconds: j.EstimatedTimeSeconds,
		Progress: j.Progress, Cursor: j.Cursor, Result: j.Result, Error: j.Error, Usage: j.Usage,
		Files: j.Files, Metadata: j.Metadata,
		CancelRequestedAt: timestamp(j.CancelRequestedAt), CreatedAt: timestamp(j.CreatedAt), RunAt: timestamp(j.RunAt),
		StartedAt: timestamp(j.StartedAt), FinishedAt: timestamp(j.FinishedAt), ExpiresAt: timestamp(j.ExpiresAt),
		PollAfterMS: nilIfZero(j.PollAfterMS),
		URLs: wireURLs{
			nilIfZero(j.URLs.Self), nilIfZero(j.URLs.Output), nilIfZero(j.URLs.Events), nilIfZero(j.URLs.Result), nilIfZero(j.URLs.Cancel), nilIfZero(j.URLs.Watch),
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
	enc.SetEscapeHTML(false) // the encoder of the enclosing value decides about HTML escapes
	err := enc.Encode(written)
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), err
}

// wireJob is the JSON form of a job.
type wireJob struct {
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
	HeldBackBy           HeldBackBy        `json:"held_back_by"`
	Resource             string            `json:"resource,omitempty"`
	EstimatedTimeSeconds *float64          `json:"estimated_time_seconds"`
	Progress             Progress          `json:"progress"`
	OutputText           *string           `json:"output_text"`
	Cursor               int64             `json:"cursor"`
	Result               json.RawMessage   `json:"result"`
	Error                *Failure          `json:"error"`
	Usage                json.RawMessage   `json:"usage"`
	Files                []File            `json:"files"`
	Metadata             map[string]string `json:"metadata"`
	CancelRequestedAt    timestamp         `json:"cancel_requested_at"`
	CreatedAt            timestamp         `json:"created_at"`
	RunAt                timestamp         `json:"run_at"`
	StartedAt            timestamp         `json:"started_at"`
	FinishedAt           timestamp         `json:"finished_at"`
	ExpiresAt            timestamp         `json:"expires_at"`
	PollAfterMS          *int              `json:"poll_after_ms"`
	URLs                 wireURLs          `json:"urls"`
}

// wireURLs is the JSON form of a job's URLs.
type wireURLs struct {
	Self   *string `json:"self"`
	Output *string `json:"output"`
	Events *string `json:"events"`
	Result *string `json:"result"`
	Cancel *string `json:"cancel"`
	Watch  *string `json:"watch"`
}

// nilIfZero returns nil for the zero value, which encodes as null.
func nilIfZero[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}

// timestamp encodes a time in UTC with milliseconds, and the zero time as null.
type timestamp time.Time

// MarshalJSON encodes the timestamp.
func (m timestamp) MarshalJSON() ([]byte, error) {
	t := time.Time(m)
	if t.IsZero() {
		return []byte("null"), nil
	}
	return t.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`), nil
}
