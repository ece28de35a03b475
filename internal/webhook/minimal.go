package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Target is where an attempt goes, and the secrets that sign it, the present one first.
type Target struct {
	URL     string
	Secrets []Secret
}

// Outcome is how an attempt ended.
type Outcome struct {
	At       time.Time
	Status   int // of the answer; 0 without one
	OK, Gone bool
	Code     string
}

// Endpoints finds where deliveries go.
type Endpoints interface {
	Target(ctx context.Context, owner job.Owner, d *Delivery) (Target, error)
	Sent(owner job.Owner, d *Delivery, o Outcome)
}

// Config configures an [Executor].
type Config struct {
	Endpoints Endpoints
	Timeout   time.Duration
}

// Executor makes the attempts of deliveries.
type Executor struct {
	config Config
	client *http.Client
}

// New makes an executor.
func New(c Config) *Executor {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, MaxIdleConns: 1024, IdleConnTimeout: time.Minute}
	return &Executor{config: c, client: &http.Client{Transport: transport, Timeout: c.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Kind is "callback".
func (*Executor) Kind() string { return "callback" }

// TakesFiles is false.
func (*Executor) TakesFiles() bool { return false }

// Check accepts nothing, because only the server makes deliveries.
func (*Executor) Check([]byte) error {
	return job.Errorf(job.Invalid, "only the server makes deliveries")
}

// Execute makes one attempt.
func (e *Executor) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	var d Delivery
	if err := json.Unmarshal(t.Input, &d); err != nil {
		return &job.Fault{Code: "invalid_input", Message: "the delivery cannot be read", Class: job.Final, Err: err}
	}
	target, err := e.config.Endpoints.Target(ctx, t.Job.Owner, &d)
	if err != nil {
		return err
	}
	began := time.Now()
	o := e.Send(ctx, target, t.Job.ID.String(), d.Event)
	e.config.Endpoints.Sent(t.Job.Owner, &d, o)
	line := fmt.Sprintf(`{"status":%d,"ms":%d}`, o.Status, time.Since(began).Milliseconds())
	if o.OK {
		out.Result(job.Result{ContentType: "application/json", Body: []byte(line)})
		return nil
	}
	if err := out.Event([]byte(line)); err != nil {
		return err
	}
	class := job.Retryable
	if o.Gone {
		class = job.Final
	}
	return &job.Fault{Code: o.Code, Message: "the receiver did not accept the delivery", Class: class}
}

// Send makes one request.
func (e *Executor) Send(ctx context.Context, t Target, id string, body []byte) (o Outcome) {
	o.At, o.Code = time.Now(), "no_answer"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(body))
	if err != nil {
		return o
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Webhook-Id", id)
	r.Header.Set("Webhook-Timestamp", strconv.FormatInt(o.At.Unix(), 10))
	r.Header.Set("Webhook-Signature", Sign(t.Secrets, id, o.At, body))
	resp, err := e.client.Do(r)
	if err != nil {
		return o
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4096)
	o.Status = resp.StatusCode
	o.OK, o.Gone = resp.StatusCode/100 == 2, resp.StatusCode == http.StatusGone
	if o.Code = ""; !o.OK {
		o.Code = fmt.Sprintf("http_%d", resp.StatusCode)
	}
	return o
}
