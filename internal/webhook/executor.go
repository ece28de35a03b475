package webhook

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/netguard"
)

// Endpoints knows where deliveries go and what signs them. Many goroutines call its methods at
// once.
type Endpoints interface {
	// Target returns what an attempt of a delivery needs. The error is a *[job.Fault] if the
	// endpoint is disabled or deleted. After any other error the delivery is tried again soon, and
	// that costs no attempt.
	Target(ctx context.Context, owner job.Owner, d *Delivery) (Target, error)
	// Sent is called after each attempt that has asked the receiver, or tried to. It does not
	// block.
	Sent(owner job.Owner, d *Delivery, o Outcome)
}

// Target is where a delivery goes, and the secrets that sign it, the present one first.
type Target struct {
	URL     string
	Secrets []Secret
}

// Outcome is how a request to a receiver ended.
type Outcome struct {
	At         time.Time     // when it began
	Took       time.Duration // until the receiver's status, or the error
	Status     int           // of the answer; 0 without one
	OK         bool          // a status from 200 to 299
	Gone       bool          // the receiver answered 410: it wants no more
	Code       string        // of the failure, stable; "" if OK
	Message    string        // the failure in a sentence, without anything that the receiver said
	RetryAfter time.Duration // what the receiver asked for, within bounds; 0 if it did not
}

// Config configures an executor.
type Config struct {
	Guard     *netguard.Guard
	Endpoints Endpoints
	Timeout   time.Duration // of a request; 0 for 15 s
	// TenantSlots is how many attempts of one tenant may run at once, so that slow receivers of one
	// do not delay the deliveries of others; 0 for no limit. Further ones wait at no cost.
	TenantSlots int
	Log         *slog.Logger // nil discards
}

const (
	defaultTimeout = 15 * time.Second
	maxIdle        = 256 // connections that are kept open
)

// Executor sends deliveries.
type Executor struct {
	// set once
	config    Config
	transport *netguard.Transport
	circuits  *circuits
	tenants   *tenantSlots
}

var _ exec.Executor = (*Executor)(nil)

// New makes an executor.
func New(c Config) *Executor {
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Executor{config: c, transport: c.Guard.Transport(maxIdle), circuits: newCircuits(c.Log), tenants: newTenantSlots(c.TenantSlots)}
}

// Close closes idle connections. No attempt may be running.
func (e *Executor) Close() { e.transport.CloseIdleConnections() }

// OpenCircuits returns how many receivers are asked by one delivery at a time, because they fail.
func (e *Executor) OpenCircuits() int { return e.circuits.countOpen() }

// Kind is "callback".
func (e *Executor) Kind() string { return "callback" }

// TakesFiles is false: what is sent is in the input.
func (e *Executor) TakesFiles() bool { return false }

// Check refuses an input that is no [Delivery].
func (e *Executor) Check(input []byte) error {
	if _, refusal := parseDelivery(input); refusal != nil {
		return refusal
	}
	return nil
}

// Execute sends a delivery once. The result is {"status", "duration_ms"}; a failed attempt writes
// an event with what happened, and when. Neither has anything of the receiver's answer but its
// status, because the answer may come from a server that the submitter cannot ask.
func (e *Executor) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	d, refusal := parseDelivery(t.Input)
	if refusal != nil {
		return &job.Fault{Code: "invalid_input", Message: refusal.Message, Class: job.Final}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	owner := t.Job.Owner
	target, err := e.config.Endpoints.Target(ctx, owner, &d)
	if err != nil {
		return e.noTarget(ctx, err)
	}
	if !e.tenants.take(owner.Tenant) {
		return tenantBusy()
	}
	defer e.tenants.release(owner.Tenant)
	destination := owner.Tenant + " " + d.Key()
	permit, wait := e.circuits.begin(destination, time.Now())
	if permit == nil {
		return circuitOpen(wait)
	}
	defer permit.release() // in case anything below panics
	o := e.send(ctx, target, t.Job.ID.String(), t.Job.Trace, d.Event)
	if ctx.Err() != nil && o.Status == 0 {
		return context.Cause(ctx)
	}
	permit.end(&o, time.Now())
	e.config.Endpoints.Sent(owner, &d, o)
	return e.finish(&t, &o, out)
}

// Send makes one request, without a job and whatever happened to others before.
func (e *Executor) Send(ctx context.Context, t Target, id string, body []byte) Outcome {
	return e.send(ctx, t, id, "", body)
}

// finish writes what happened, and returns the fault of a failed attempt.
func (e *Executor) finish(t *exec.Task, o *Outcome, out exec.Sink) error {
	if o.OK {
		out.Result(job.Result{ContentType: "application/json", Body: encode(delivered{o.Status, o.Took.Milliseconds()})})
		return nil
	}
	if err := out.Event(encode(failedAttempt{
		Attempt: t.Job.Attempt, At: timestamp(o.At), Status: o.Status, Duration: o.Took.Milliseconds(), Code: o.Code,
	})); err != nil {
		return err
	}
	return o.fault(nextDelay(&t.Job))
}

// delivered is the result of a delivery.
type delivered struct {
	Status   int   `json:"status"`
	Duration int64 `json:"duration_ms"`
}

// failedAttempt is what the output of a delivery has for each failed attempt.
type failedAttempt struct {
	Attempt  int       `json:"attempt"`
	At       timestamp `json:"at"`
	Status   int       `json:"status,omitempty"`
	Duration int64     `json:"duration_ms"`
	Code     string    `json:"code"`
}

// nextDelay is how long a delivery waits after this attempt, with jitter, so that deliveries that
// failed together do not all come back at the same moment.
func nextDelay(j *job.Job) time.Duration {
	next := j.Failures()
	if next < 1 || next >= len(Schedule) {
		return 0
	}
	return Schedule[next] + time.Duration(rand.Float64()*scheduleJitter*float64(Schedule[next]))
}

// noTarget is the error of an attempt whose endpoint could not be found out.
func (e *Executor) noTarget(ctx context.Context, err error) error {
	if _, isFault := errors.AsType[*job.Fault](err); isFault {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e.config.Log.Warn("the endpoint of a delivery cannot be read, and the delivery waits", "error", err)
	return &job.Fault{Code: "endpoint_unknown", Class: job.Wait, RetryAfter: time.Second, Err: err,
		Message: "The endpoint of the delivery cannot be read now; the server's log has the details."}
}
