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

// Submission asks for a job. Only Queue and Input are needed; a zero field means
// what the queue's own settings say.
type Submission struct {
	Queue string
	// Input is what the job is to work on: any value that encoding/json can write; a
	// [json.RawMessage] is sent as it is. The whole request is at most 1 MiB.
	Input any

	Key      string        // whose turn it is, at most 256 bytes: jobs of different keys take turns
	Priority int           // 1 first, 9 last; 0 means 5
	Delay    time.Duration // run no sooner than this from now
	RunAt    time.Time     // run no sooner than this; set one of Delay and RunAt

	MaxAttempts int // how often it may fail, 1 to 100
	Timeouts    Timeouts
	Retry       RetryPolicy
	Metadata    map[string]string // at most 16 pairs of 64 and 512 bytes

	// AbandonAfter cancels the job once nobody has watched it, asked for it or sent a
	// heartbeat for so long: 2 minutes at least; [Off] for never.
	AbandonAfter time.Duration

	// IdempotencyKey makes the job once: a second submission with the same key and
	// content answers the first one's job, another content is the error
	// [CodeIdempotencyMismatch]. The server remembers it as long as the job, and 24
	// hours at least. When "" a random one is made for each call, so that a
	// repeated try never makes a second job.
	IdempotencyKey string
}

// Off, as one of [Timeouts], turns a clock off that the queue has on. Any negative
// duration does.
const Off time.Duration = -1

// Timeouts are a job's clocks. A zero one is the queue's.
type Timeouts struct {
	Lease       time.Duration // a worker silent this long may lose the job to another: 1 s to 1 h
	RunSoft     time.Duration // per attempt: the work is asked to stop
	RunHard     time.Duration // per attempt: cut off
	Request     time.Duration // a call to a model that is not streamed, and the wait for the headers of one that is
	FirstOutput time.Duration // from the start of an attempt to its first piece of output
	IdleOutput  time.Duration // between two pieces
	Queue       time.Duration // waiting longer than this: expired
	CancelGrace time.Duration // after a cancel: then the work loses its slot
}

// RetryPolicy says what follows a failed attempt. A zero field is the queue's.
type RetryPolicy struct {
	Backoff    time.Duration // before the second attempt; doubled for each one after
	BackoffMax time.Duration // a backoff grows no longer than this
	For        time.Duration // how long being told to wait (429, 503) is put up with
	OnTimeout  *bool         // whether an attempt that reached its run time may be tried again
	// AfterOutput is "restart" (try again, what was said is superseded) or "fail"
	// (keep what was said), for an attempt that fails after it has spoken.
	AfterOutput string
}

// Submit stores a job and returns once it is on the server's disk. Refusals:
// [CodeUnknownQueue], [CodeInvalid], [CodeTooLarge], [CodeIdempotencyMismatch], and,
// after the retries, [CodeQueueFull] and [CodeOverloaded].
func (c *Client) Submit(ctx context.Context, s Submission) (*Job, error) {
	return c.submit(ctx, s, 0)
}

// SubmitAndWait is [Client.Submit] and then [Client.Wait]: it returns when the job
// has ended, or with ctx. A short job takes one request. Whether the job succeeded
// is in its Status; it is not an error if it did not.
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

// The submission as it is on the wire, but for its input.
type (
	wireSubmission struct {
		Queue       string            `json:"queue"`
		Key         string            `json:"key,omitempty"`
		Priority    int               `json:"priority,omitempty"`
		Delay       seconds           `json:"delay_s,omitempty"`
		RunAt       time.Time         `json:"run_at,omitzero"`
		MaxAttempts int               `json:"max_attempts,omitempty"`
		Timeouts    wireTimeouts      `json:"timeouts,omitzero"`
		Retry       wireRetry         `json:"retry,omitzero"`
		Metadata    map[string]string `json:"metadata,omitempty"`
		Abandon     seconds           `json:"abandon_after_s,omitempty"`
		Idempotency string            `json:"idempotency_key,omitempty"` // of one of many; one alone has it in the header
	}
	wireTimeouts struct {
		Lease       seconds `json:"lease_s,omitempty"`
		RunSoft     seconds `json:"run_soft_s,omitempty"`
		RunHard     seconds `json:"run_hard_s,omitempty"`
		Request     seconds `json:"request_s,omitempty"`
		FirstOutput seconds `json:"first_output_s,omitempty"`
		IdleOutput  seconds `json:"idle_output_s,omitempty"`
		Queue       seconds `json:"queue_s,omitempty"`
		CancelGrace seconds `json:"cancel_grace_s,omitempty"`
	}
	wireRetry struct {
		Backoff     seconds `json:"backoff_s,omitempty"`
		BackoffMax  seconds `json:"backoff_max_s,omitempty"`
		For         seconds `json:"for_s,omitempty"`
		OnTimeout   *bool   `json:"on_timeout,omitempty"`
		AfterOutput string  `json:"after_output,omitempty"`
	}
	// seconds is a duration that is written as a number of seconds; a negative one is
	// written as 0, and one that is 0 is left out.
	seconds time.Duration
)

func (s seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(max(time.Duration(s), 0).Seconds())
}

// encode writes the submission, with its idempotency key where it is one of many. A
// raw input is checked and then copied: writing it
// again as encoding/json would costs more than all the rest.
func (s *Submission) encode(key string) ([]byte, error) {
	input, raw := s.Input.(json.RawMessage)
	var err error
	switch {
	case !raw:
		input, err = json.Marshal(s.Input)
	case !json.Valid(input):
		err = errors.New("it is a json.RawMessage that holds no JSON")
	}
	if err != nil {
		return nil, fmt.Errorf("client: the input cannot be written as JSON: %w", err)
	}
	wire := s.wire()
	wire.Idempotency = key
	rest, err := json.Marshal(wire)
	if err != nil {
		return nil, fmt.Errorf("client: the submission cannot be written as JSON: %w", err)
	}
	body := make([]byte, 0, len(rest)+len(input)+len(`,"input":`))
	body = append(body, rest[:len(rest)-1]...)
	body = append(append(body, `,"input":`...), input...)
	return append(body, '}'), nil
}

// wire is the submission without its input.
func (s *Submission) wire() wireSubmission {
	t, r := s.Timeouts, s.Retry
	return wireSubmission{
		Queue: s.Queue, Key: s.Key, Priority: s.Priority,
		Delay: seconds(s.Delay), RunAt: s.RunAt, MaxAttempts: s.MaxAttempts, Metadata: s.Metadata, Abandon: seconds(s.AbandonAfter),
		Timeouts: wireTimeouts{
			Lease: seconds(t.Lease), RunSoft: seconds(t.RunSoft), RunHard: seconds(t.RunHard), Request: seconds(t.Request),
			FirstOutput: seconds(t.FirstOutput), IdleOutput: seconds(t.IdleOutput),
			Queue: seconds(t.Queue), CancelGrace: seconds(t.CancelGrace),
		},
		Retry: wireRetry{
			Backoff: seconds(r.Backoff), BackoffMax: seconds(r.BackoffMax), For: seconds(r.For),
			OnTimeout: r.OnTimeout, AfterOutput: r.AfterOutput,
		},
	}
}
