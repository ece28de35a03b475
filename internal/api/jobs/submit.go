package jobs

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// submission is the body of POST /v1/jobs, and an element of POST /v1/jobs/batch.
type submission struct {
	Queue       string            `json:"queue"`
	Input       json.RawMessage   `json:"input"` // any value; required
	Priority    *int64            `json:"priority"`
	Key         string            `json:"key"`
	RunAt       *string           `json:"run_at"` // RFC 3339; not with delay_s
	DelayS      *float64          `json:"delay_s"`
	MaxAttempts *int64            `json:"max_attempts"`
	Timeouts    timeouts          `json:"timeouts"`
	Retry       *retry            `json:"retry"`
	Metadata    map[string]string `json:"metadata"`
	// AbandonAfterS is how long no client may ask about the job before it is cancelled.
	AbandonAfterS *float64 `json:"abandon_after_s"`
	// Callback is a URL, or an object with the fields of a callback.
	Callback json.RawMessage `json:"callback"`
	// IdempotencyKey is only for an element of a batch. A single submit has it in the header.
	IdempotencyKey *string `json:"idempotency_key"`
}

// submit stores a job. The status is 202 once the job is on disk, or 200 where it has ended
// within the wait of the Prefer header.
func (a *API) submit(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	prefer, err := api.ParsePrefer(r.Header)
	if err != nil {
		return err
	}
	if a.files != nil && isForm(r) {
		return a.submitForm(w, r, prefer)
	}
	req, err := a.readRequest(r)
	if err != nil {
		return err
	}
	snap, existing, err := a.store(r, req, prefer.Wait)
	if err != nil {
		return err
	}
	a.writeSubmitted(w, r, prefer, engine.SubmitResult{Snapshot: snap, Existing: existing})
	return nil
}

// writeSubmitted writes the job of a submit. It is an earlier job where the idempotency key
// was used before.
func (a *API) writeSubmitted(w http.ResponseWriter, r *http.Request, p api.Prefer, s engine.SubmitResult) {
	h := w.Header()
	p.Apply(h)
	h["Location"] = []string{selfURL(s.ID)}
	if s.Existing {
		h["Idempotent-Replay"] = []string{"true"}
	}
	a.writeJob(w, r, statusOf(&s.Job), &s.Snapshot, a.watchURL(r, p, &s.Job))
}

// store submits the job to the engine. With a wait it returns at the job's end or after the
// wait.
func (a *API) store(r *http.Request, req engine.Request, wait time.Duration) (engine.Snapshot, bool, error) {
	if wait == 0 {
		snap, existing, err := a.engine.Submit(r.Context(), req)
		return snap, existing, atInput(err)
	}
	ctx, cancel := a.contextUntilStop(r)
	defer cancel()
	// With an id of our own the job can be found below, where the engine returns none.
	req.ID = job.NewID()
	snap, existing, err := a.engine.SubmitAndWait(ctx, req, wait)
	// The server has begun to stop during the wait. The job may be on disk all the same.
	if err != nil && ctx.Err() != nil && r.Context().Err() == nil {
		snap, err = a.engine.Get(r.Context(), req.Owner, req.ID)
		if err != nil {
			return snap, false, job.Wrapf(job.ShuttingDown, err, "the server is stopping; submit the job again, with the same Idempotency-Key if it had one")
		}
	}
	return snap, existing, atInput(err)
}

// atInput makes the Field of a [job.Invalid] error about the input relative to the request: it
// adds the prefix /input.
func atInput(err error) error {
	e, ok := errors.AsType[*job.Error](err)
	if !ok || e.Code != job.Invalid {
		return err
	}
	moved := *e
	moved.Field = "/input" + e.Field
	return &moved
}

// statusOf returns 200 for a job that has ended, else 202.
func statusOf(j *job.Job) int {
	if j.State.Ended() {
		return http.StatusOK
	}
	return http.StatusAccepted
}

// readRequest reads and checks a whole submit, before anything is stored.
func (a *API) readRequest(r *http.Request) (engine.Request, error) {
	if err := api.RequireJSON(r); err != nil {
		return engine.Request{}, err
	}
	key, err := api.IdempotencyKey(r.Header)
	if err != nil {
		return engine.Request{}, err
	}
	body, err := api.ReadBody(r, a.maxBody)
	if err != nil {
		return engine.Request{}, err
	}
	req, err := a.decodeSubmission(r, body, submission{})
	if err != nil {
		return engine.Request{}, err
	}
	if key != "" {
		// A client that repeats a request sends the same bytes. So the hash of the bytes tells
		// a repeated request from a different one with the same key.
		req.IdempotencyKey, req.Hash = key, sha256.Sum256(body)
	}
	return req, nil
}

// decodeSubmission decodes the JSON of one submit over the defaults in s, and checks it.
func (a *API) decodeSubmission(r *http.Request, text []byte, s submission) (engine.Request, error) {
	if err := api.DecodeJSON(text, &s); err != nil {
		return engine.Request{}, err
	}
	if s.IdempotencyKey != nil {
		return engine.Request{}, refuse("/idempotency_key", "the key of one job stands in the header Idempotency-Key")
	}
	req, err := a.newRequest(&s)
	if err == nil {
		err = claim(gate.CallerFrom(r), &req)
	}
	req.Trace = api.Traceparent(r)
	return req, err
}

// newRequest checks a submission and converts it.
func (a *API) newRequest(s *submission) (engine.Request, error) {
	if err := s.check(); err != nil {
		return engine.Request{}, err
	}
	req := engine.Request{Queue: s.Queue, Key: s.Key, Input: s.Input, Metadata: s.Metadata}
	if s.Priority != nil {
		req.Priority = int(*s.Priority)
	}
	if s.MaxAttempts != nil {
		req.MaxAttempts = int(*s.MaxAttempts)
	}
	var err error
	if req.Delay, err = s.delay(); err != nil {
		return engine.Request{}, err
	}
	if req.Callback, err = parseCallback(s.Callback); err != nil {
		return engine.Request{}, err
	}
	if s.Timeouts != nil || s.Retry != nil || s.AbandonAfterS != nil {
		req.Policy, err = a.policy(s)
	}
	return req, err
}

// policy returns the policy of the queue or kind with the submitter's values on top.
func (a *API) policy(s *submission) (*job.Policy, error) {
	q, err := a.engine.Queue(s.Queue)
	if err != nil {
		return nil, err
	}
	_, p := q.DefaultsFor(s.Metadata)
	if err := s.overlayTimeouts(&p.Timeouts); err != nil {
		return nil, err
	}
	if err := s.Retry.overlay(&p.Retry); err != nil {
		return nil, err
	}
	return &p, nil
}
