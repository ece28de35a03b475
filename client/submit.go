package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Submission describes a new job. Queue and Input are required. A zero field takes the
// setting of the queue.
type Submission struct {
	Queue string
	// Input is the input of the job: any value that encoding/json can encode. A
	// [json.RawMessage] is sent unchanged. Each queue bounds its size: by
	// default 16 MiB for queues that call a model, 1 MiB for others.
	Input any

	Key      string        // groups jobs for fair order: the keys of a queue take turns; at most 256 bytes
	Priority int           // 1 runs first, 9 last; 0 means 5
	Delay    time.Duration // the job does not run before this time has passed
	RunAt    time.Time     // the job does not run before this time; set Delay or RunAt, not both

	MaxAttempts int // number of failed attempts before the job fails, 1 to 100
	Timeouts    Timeouts
	Retry       RetryPolicy
	Metadata    map[string]string // at most 16 pairs; names up to 64 bytes, values up to 512

	// AbandonAfter cancels the job when no client has watched it, read it or sent a
	// heartbeat for it for this time. The minimum is 2 minutes; [Off] means never.
	AbandonAfter time.Duration

	// Callback is where the end of the job is sent; nil for where its queue says, if anywhere.
	Callback *Callback

	// IdempotencyKey prevents a second job. A submission with the same key and content
	// returns the first job; other content is the error [CodeIdempotencyMismatch]. The
	// server keeps the key as long as the job, and at least 24 hours. When it is "" and
	// the client retries, each call sends a random key, so that a retry creates no second
	// job.
	IdempotencyKey string
}

// Callback is a receiver of the end of a job.
type Callback struct {
	URL      string   `json:"url"`
	Events   []string `json:"events,omitempty"`    // such as "job.failed"; empty for every end
	SecretID string   `json:"secret_id,omitempty"` // the webhook endpoint whose secret signs; "" for the default secret
}

// Off turns off a clock of [Timeouts], even if the queue sets it. Any negative duration
// does the same.
const Off time.Duration = -1

// RetryPolicy says what happens after a failed attempt. A zero field takes the setting of
// the queue.
type RetryPolicy struct {
	Backoff    time.Duration // wait before the second attempt; doubled for each further one
	BackoffMax time.Duration // maximum of a backoff
	For        time.Duration // how long an upstream may ask to wait (429, 503) before the job fails
	OnTimeout  *bool         // whether to retry an attempt that reached its run timeout; nil for the queue's setting
	// AfterOutput is for an attempt that fails after it has written output: "restart"
	// retries and supersedes the output, "fail" fails the job and keeps the output.
	AfterOutput string
}

// Submit submits a job and returns it once it is on the server's disk. Refusals are
// [CodeUnknownQueue], [CodeInvalid], [CodeTooLarge], [CodeIdempotencyMismatch], and, after
// the retries, [CodeQueueFull], [CodeKeyFull] and [CodeOverloaded].
func (c *Client) Submit(ctx context.Context, s Submission) (*Job, error) {
	return c.submit(ctx, s, 0)
}

// SubmitAndWait submits a job and waits until it has ended, as [Client.Submit] and
// [Client.Wait] do. A short job takes one request. A job that failed is not an error: see
// its Status.
func (c *Client) SubmitAndWait(ctx context.Context, s Submission) (*Job, error) {
	j, err := c.submit(ctx, s, maxWait)
	if err != nil || j.Status.Ended() {
		return j, err
	}
	return c.Wait(ctx, j.ID)
}

func (c *Client) submit(ctx context.Context, s Submission, wait time.Duration) (*Job, error) {
	body, err := s.encode("")
	if err != nil {
		return nil, err
	}
	k := &call{method: http.MethodPost, path: "/v1/jobs", body: body, wait: wait, key: s.IdempotencyKey}
	if k.key == "" && c.retries > 0 {
		k.key = newKey()
	}
	j := new(Job)
	_, err = c.json(ctx, k, j)
	if err != nil {
		return nil, err
	}
	return j, nil
}

func newKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}

// The JSON form of a submission, without its input.
type (
	wireSubmission struct {
		Queue          string            `json:"queue,omitempty"`
		Key            string            `json:"key,omitempty"`
		Priority       int               `json:"priority,omitempty"`
		Delay          seconds           `json:"delay_s,omitempty"`
		RunAt          time.Time         `json:"run_at,omitzero"`
		MaxAttempts    int               `json:"max_attempts,omitempty"`
		Timeouts       wireTimeouts      `json:"timeouts,omitzero"`
		Retry          wireRetry         `json:"retry,omitzero"`
		Metadata       map[string]string `json:"metadata,omitempty"`
		AbandonAfter   seconds           `json:"abandon_after_s,omitempty"`
		Callback       *Callback         `json:"callback,omitempty"`
		IdempotencyKey string            `json:"idempotency_key,omitempty"` // only in a batch; otherwise it is in the header
	}
	wireRetry struct {
		Backoff     seconds `json:"backoff_s,omitempty"`
		BackoffMax  seconds `json:"backoff_max_s,omitempty"`
		For         seconds `json:"for_s,omitempty"`
		OnTimeout   *bool   `json:"on_timeout,omitempty"`
		AfterOutput string  `json:"after_output,omitempty"`
	}
	// seconds is a duration whose JSON is a number of seconds: 0 for a negative duration.
	seconds time.Duration
)

func (s seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(max(time.Duration(s), 0).Seconds())
}

// InboxBody returns the value of the column body for a row of the inbox (docs/inbox.md), which a
// program inserts in a transaction of its own. Queue and IdempotencyKey have columns of their own.
func (s Submission) InboxBody() (json.RawMessage, error) {
	s.Queue = ""
	return s.encode("")
}

// encode encodes the submission. The idempotency key is set for a job of a batch. A raw
// input is validated and copied: encoding it again would cost more than everything else.
func (s *Submission) encode(key string) ([]byte, error) {
	input, raw := s.Input.(json.RawMessage)
	var err error
	switch {
	case !raw:
		input, err = json.Marshal(s.Input)
	case !json.Valid(input):
		err = errors.New("it is a json.RawMessage that holds invalid JSON")
	}
	if err != nil {
		return nil, fmt.Errorf("client: the input cannot be written as JSON: %w", err)
	}
	wire := s.wire()
	wire.IdempotencyKey = key
	rest, err := json.Marshal(wire)
	if err != nil {
		return nil, fmt.Errorf("client: the submission cannot be written as JSON: %w", err)
	}
	// rest is an object without the input. Write the input in place of its closing brace.
	body := make([]byte, 0, len(rest)+len(input)+len(`,"input":`))
	if body = append(body, rest[:len(rest)-1]...); len(body) > 1 {
		body = append(body, ',')
	}
	body = append(append(body, `"input":`...), input...)
	return append(body, '}'), nil
}

// wire returns the JSON form of the submission, without its input.
func (s *Submission) wire() wireSubmission {
	r := s.Retry
	return wireSubmission{
		Queue: s.Queue, Key: s.Key, Priority: s.Priority,
		Delay: seconds(s.Delay), RunAt: s.RunAt, MaxAttempts: s.MaxAttempts, Metadata: s.Metadata, AbandonAfter: seconds(s.AbandonAfter),
		Timeouts: wireTimeouts(s.Timeouts), Callback: s.Callback,
		Retry: wireRetry{
			Backoff: seconds(r.Backoff), BackoffMax: seconds(r.BackoffMax), For: seconds(r.For),
			OnTimeout: r.OnTimeout, AfterOutput: r.AfterOutput,
		},
	}
}
