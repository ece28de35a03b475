package client

import (
	"encoding/json"
	"time"
)

// Status is the state of a job.
type Status string

// The statuses of a job, in the order in which a job goes through them.
const (
	Scheduled Status = "scheduled" // waits for a time: a delay, or the backoff after a failed attempt
	Queued    Status = "queued"    // ready for a worker
	Parked    Status = "parked"    // ready, but its key has its maximum of running jobs
	Running   Status = "running"   // an attempt is running
	Succeeded Status = "succeeded" // ended with a result
	Failed    Status = "failed"    // ended with an error
	Cancelled Status = "cancelled" // ended by a cancel
	Expired   Status = "expired"   // ended before it ran: it waited longer than its queue timeout
)

// Ended reports whether s is [Succeeded], [Failed], [Cancelled] or [Expired]. Only
// [Client.Retry] takes a job out of an ended status, and never out of [Succeeded].
func (s Status) Ended() bool {
	switch s {
	case Succeeded, Failed, Cancelled, Expired:
		return true
	}
	return false
}

// Job is the state of a job when the server answered. The fields QueuePosition,
// HeldBackBy, EstimatedTimeSeconds, OutputText and Result are not set in lists, in an
// [Output] and in the snapshots of a watch.
type Job struct {
	ID          string `json:"id"`
	Object      string `json:"object"` // "job"
	Queue       string `json:"queue"`
	Status      Status `json:"status"`
	Key         string `json:"key"`      // groups jobs for fair order: the keys of a queue take turns
	Priority    int    `json:"priority"` // 1 first, 9 last
	Attempt     int    `json:"attempt"`  // number of started attempts
	MaxAttempts int    `json:"max_attempts"`
	// AbandonAfterS is the time in seconds after which a job is cancelled when no client
	// watched it, read it or sent a heartbeat for it; 0 for never.
	AbandonAfterS float64 `json:"abandon_after_s"`

	// QueuePosition is the number of jobs that run before this one. It is exact up to 100
	// and an estimate above. It is nil unless the job is queued.
	QueuePosition *int `json:"queue_position"`
	// HeldBackBy is the reason why a waiting job does not run yet; "" for none.
	HeldBackBy HeldBackBy `json:"held_back_by"`
	// Resource is what an attempt needs besides a slot of its queue: the model that it calls; ""
	// for nothing.
	Resource string `json:"resource"`
	// EstimatedTimeSeconds is the estimated time in seconds until the job has ended,
	// learned from earlier jobs; nil when unknown.
	EstimatedTimeSeconds *float64 `json:"estimated_time_seconds"`

	Progress   Progress `json:"progress"`    // of the current attempt
	OutputText string   `json:"output_text"` // text output of the current attempt, at most 64 KiB
	Cursor     int64    `json:"cursor"`      // number of the last output entry; 0 when there is no output

	// Result is the result of a succeeded job, if it is JSON of at most 64 KiB; nil
	// otherwise. [Client.Result] returns any result.
	Result json.RawMessage `json:"result"`
	// Error is the failure of the last failed attempt; nil when none failed.
	Error    *Failure          `json:"error"`
	Usage    json.RawMessage   `json:"usage"` // cost of the work, such as the token counts of a model; nil when unknown
	Files    []File            `json:"files"` // files submitted with the job
	Metadata map[string]string `json:"metadata"`

	// The zero time means that it has not happened.
	CancelRequestedAt time.Time `json:"cancel_requested_at"`
	CreatedAt         time.Time `json:"created_at"`
	RunAt             time.Time `json:"run_at"` // when a scheduled job becomes ready; otherwise when it last became ready
	StartedAt         time.Time `json:"started_at"`
	FinishedAt        time.Time `json:"finished_at"`
	ExpiresAt         time.Time `json:"expires_at"` // the time from which the server may delete an ended job

	// PollAfterMS is how long a polling client should wait before it reads the job again,
	// in milliseconds; 0 when the job has ended.
	PollAfterMS int  `json:"poll_after_ms"`
	URLs        URLs `json:"urls"`

	// brief says that output_text was null, as in lists. MarshalJSON then writes null
	// again instead of an empty text.
	brief bool
}

// File describes a file that was submitted with a job.
type File struct {
	Name        string `json:"name"`
	ContentType string `json:"content_type"`
	Size        int64  `json:"size"`   // bytes
	SHA256      string `json:"sha256"` // SHA-256 of the content, in hexadecimal
}

// Progress is the progress of an attempt. The zero value is the start.
type Progress struct {
	Percent float64 `json:"percent"` // 0 to 100; never falls within an attempt
	Status  string  `json:"status"`  // a text for people about the current work
}

// Failure describes a failed attempt.
type Failure struct {
	Code      string `json:"code"`      // stable, for programs
	Message   string `json:"message"`   // a sentence for people
	Retryable bool   `json:"retryable"` // whether another attempt could succeed
	Attempt   int    `json:"attempt"`   // number of the failed attempt, from 1
}

// URLs are the paths of a job on the server.
//
// Watch is for the EventSource of a browser. It contains a token that gives access to this
// job until the token expires, so the browser needs no other credential. It is an absolute
// URL when the server knows its public address. It is "" in lists and in the events of a
// watch.
type URLs struct {
	Self   string `json:"self"`
	Output string `json:"output"`
	Events string `json:"events"`
	Result string `json:"result"`
	Cancel string `json:"cancel"`
	Watch  string `json:"watch"`
}

// Kind is the kind of an output [Entry].
type Kind string

// The kinds of an output entry. Entry.Data depends on the kind.
const (
	KindText     Kind = "text"     // a piece of text; Data is a JSON string
	KindJSON     Kind = "json"     // one event of the executor; Data is any JSON value
	KindLog      Kind = "log"      // a log line for operators; Data is a JSON string
	KindProgress Kind = "progress" // Data is a [Progress]
	KindAttempt  Kind = "attempt"  // a new attempt begins; the output of earlier attempts no longer counts
)

// Entry is one numbered piece of a job's output. An entry never changes.
type Entry struct {
	Seq     int64           `json:"seq"`     // 1, 2, 3 … without gaps, across all attempts
	Attempt int             `json:"attempt"` // the attempt that wrote it, from 1
	Kind    Kind            `json:"kind"`
	Data    json.RawMessage `json:"data"`
}

// Text returns the text of a [KindText] or [KindLog] entry; "" for other kinds.
func (e Entry) Text() string {
	if e.Kind != KindText && e.Kind != KindLog {
		return ""
	}
	var s string
	_ = json.Unmarshal(e.Data, &s) // invalid data leaves the text empty
	return s
}

// Progress returns the progress of a [KindProgress] entry; the zero value for other kinds.
func (e Entry) Progress() Progress {
	var p Progress
	if e.Kind == KindProgress {
		_ = json.Unmarshal(e.Data, &p) // invalid data leaves the progress zero
	}
	return p
}
