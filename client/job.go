package client

import (
	"encoding/json"
	"time"
)

// Status says where a job stands.
type Status string

// The statuses, in the order of a job's life.
const (
	Scheduled Status = "scheduled" // waits for its time: a delay, or the backoff after a failed attempt
	Queued    Status = "queued"    // ready for a worker
	Parked    Status = "parked"    // ready, but its key has as many running as it may
	Running   Status = "running"   // being worked on
	Succeeded Status = "succeeded" // ended with a result
	Failed    Status = "failed"    // ended with an error
	Cancelled Status = "cancelled" // ended because someone asked
	Expired   Status = "expired"   // ended before it ran: it waited longer than it was allowed to
)

// Ended says whether the job is over. Only [Client.Retry] leads out of an ended
// status, and nothing leads out of [Succeeded].
func (s Status) Ended() bool {
	switch s {
	case Succeeded, Failed, Cancelled, Expired:
		return true
	}
	return false
}

// Job is a job as the server saw it when it answered. In lists, in what an
// [Output] carries and in the snapshots of a watch, QueuePosition,
// EstimatedTimeSeconds, OutputText and Result are left out.
type Job struct {
	ID          string `json:"id"`
	Object      string `json:"object"` // "job"
	Queue       string `json:"queue"`
	Status      Status `json:"status"`
	Key         string `json:"key"`      // whose turn it is: jobs of one key wait for each other
	Priority    int    `json:"priority"` // 1 first, 9 last
	Attempt     int    `json:"attempt"`  // how many attempts were started
	MaxAttempts int    `json:"max_attempts"`
	// AbandonAfterS is for how many seconds nobody may watch the job, ask for it or
	// send a heartbeat before it is cancelled; 0 for as long as it takes.
	AbandonAfterS float64 `json:"abandon_after_s"`

	// QueuePosition is how many jobs of the queue will run before this one: exact to
	// 100, an estimate beyond; nil unless the job is queued.
	QueuePosition *int `json:"queue_position"`
	// HeldBackBy is why a waiting job is not given to a worker; "" where QueuePosition is
	// left out.
	HeldBackBy HoldReason `json:"held_back_by"`
	// EstimatedTimeSeconds is how long until the job has ended, learned from the jobs
	// before it; nil when unknown.
	EstimatedTimeSeconds *float64 `json:"estimated_time_seconds"`

	Progress   Progress `json:"progress"`    // of the current attempt
	OutputText string   `json:"output_text"` // said so far in this attempt, at most 64 KiB
	Cursor     int64    `json:"cursor"`      // the number of the last output entry

	// Result is what a succeeded job came to, when it is JSON of at most 64 KiB; nil
	// otherwise: [Client.Result] has them all.
	Result json.RawMessage `json:"result"`
	// Error is what the last failed attempt came to; nil when none failed.
	Error    *Failure          `json:"error"`
	Usage    json.RawMessage   `json:"usage"` // what the work cost; for a model call its token counts
	Files    []File            `json:"files"` // they came with the job
	Metadata map[string]string `json:"metadata"`

	// Zero until they happened.
	CancelRequestedAt time.Time `json:"cancel_requested_at"`
	CreatedAt         time.Time `json:"created_at"`
	RunAt             time.Time `json:"run_at"` // when a scheduled job becomes ready; for others, when it last did
	StartedAt         time.Time `json:"started_at"`
	FinishedAt        time.Time `json:"finished_at"`
	ExpiresAt         time.Time `json:"expires_at"` // when an ended job may be deleted

	// PollAfterMS is how long to wait before asking again, in milliseconds; 0 when
	// the job has ended.
	PollAfterMS int  `json:"poll_after_ms"`
	URLs        URLs `json:"urls"`

	// brief says that the answer left out what lists leave out, so that what is empty
	// here was not said. Written as JSON it is not said again.
	brief bool
}

// File is a file that came with a job.
type File struct {
	Name        string `json:"name"`
	ContentType string `json:"content_type"`
	Size        int64  `json:"size"`   // bytes
	SHA256      string `json:"sha256"` // of its bytes, in hexadecimal
}

// Progress says how far an attempt has come.
type Progress struct {
	Percent float64 `json:"percent"` // 0 to 100; never falls within an attempt
	Status  string  `json:"status"`
}

// Failure is why an attempt failed.
type Failure struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"` // whether another attempt could succeed
	Attempt   int    `json:"attempt"`   // which attempt failed
}

// URLs are where a job can be asked for: paths on the server.
//
// Watch is for a browser: its EventSource follows the job there with no other
// credential, until the token in it expires. It is absolute where the server knows how
// browsers reach it, and "" where the answer has none: in what a watch tells.
type URLs struct {
	Self   string `json:"self"`
	Output string `json:"output"`
	Events string `json:"events"`
	Result string `json:"result"`
	Cancel string `json:"cancel"`
	Watch  string `json:"watch"`
}

// Kind is the kind of an output entry.
type Kind string

// The kinds.
const (
	KindText     Kind = "text"     // a piece of text: Data is a JSON string
	KindJSON     Kind = "json"     // one event, verbatim
	KindLog      Kind = "log"      // a line for whoever operates the job: Data is a JSON string
	KindProgress Kind = "progress" // Data is a [Progress]
	KindAttempt  Kind = "attempt"  // a new attempt begins: what earlier attempts said is superseded
)

// Entry is one numbered piece of what a job says. An entry that was once seen
// never changes.
type Entry struct {
	Seq     int64           `json:"seq"` // 1, 2, 3 … without gaps, across all attempts
	Attempt int             `json:"attempt"`
	Kind    Kind            `json:"kind"`
	Data    json.RawMessage `json:"data"`
}

// Text is what a [KindText] or [KindLog] entry says; "" for other kinds.
func (e Entry) Text() string {
	if e.Kind != KindText && e.Kind != KindLog {
		return ""
	}
	var s string
	_ = json.Unmarshal(e.Data, &s) // what is no string says nothing
	return s
}

// Progress is what a [KindProgress] entry reports; the zero value for other kinds.
func (e Entry) Progress() Progress {
	var p Progress
	if e.Kind == KindProgress {
		_ = json.Unmarshal(e.Data, &p) // what is no progress reports nothing
	}
	return p
}
