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

// submission is the body of POST /v1/jobs, and one of many of POST /v1/jobs/batch.
type submission struct {
	Queue       string            `json:"queue"`
	Input       json.RawMessage   `json:"input"` // any value; required
	Priority    *int64            `json:"priority"`
	Key         string            `json:"key"`
	RunAt       *string           `json:"run_at"` // RFC 3339; not with delay_s
	DelayS      *float64          `json:"delay_s"`
	MaxAttempts *int64            `json:"max_attempts"`
	Timeouts    *timeouts         `json:"timeouts"`
	Retry       *retry            `json:"retry"`
	Metadata    map[string]string `json:"metadata"`
	// AbandonAfterS is how long nobody may ask for the job before it is cancelled.
	AbandonAfterS *float64 `json:"abandon_after_s"`
	// IdempotencyKey is of one of many; one alone has it in the header.
	IdempotencyKey *string `json:"idempotency_key"`
}

// submit stores a job: 202 once it is on disk, or 200 with the job at its end.
func (f *API) submit(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	prefer, err := api.ParsePrefer(r.Header)
	if err != nil {
		return err
	}
	if f.files != nil && isForm(r) {
		return f.submitForm(w, r, prefer)
	}
	req, err := f.request(r)
	if err != nil {
		return err
	}
	snap, existing, err := f.store(r, req, prefer.Wait)
	if err != nil {
		return err
	}
	f.answerSubmit(w, r, prefer, engine.SubmitResult{Snapshot: snap, Existing: existing})
	return nil
}

// answerSubmit answers with the job that a submit made, or had made before.
func (f *API) answerSubmit(w http.ResponseWriter, r *http.Request, p api.Prefer, s engine.SubmitResult) {
	h := w.Header()
	p.Apply(h)
	h["Location"] = []string{selfURL(s.ID)}
	if s.Existing {
		h["Idempotent-Replay"] = []string{"true"}
	}
	f.answerJob(w, accepted(&s.Job), &s.Snapshot, f.watchURL(r, p, &s.Job))
}

// store has the engine store the job, and waits for its end if that was asked for.
func (f *API) store(r *http.Request, req engine.Request, wait time.Duration) (engine.Snapshot, bool, error) {
	if wait == 0 {
		snap, existing, err := f.engine.Submit(r.Context(), req)
		return snap, existing, ofInput(err)
	}
	ctx, cancel := f.untilStop(r)
	defer cancel()
	req.ID = job.NewID() // by which to find the job if the server stops meanwhile
	snap, existing, err := f.engine.SubmitAndWait(ctx, req, wait)
	if err != nil && ctx.Err() != nil && r.Context().Err() == nil {
		snap, err = f.engine.Get(r.Context(), req.Owner, req.ID)
		if err != nil {
			return snap, false, job.Wrapf(job.ShuttingDown, err, "the server is stopping; submit the job again, with the same Idempotency-Key if it had one")
		}
	}
	return snap, existing, ofInput(err)
}

// ofInput points a refusal of the input, whose field is the input's own, to where
// the input stands in the request.
func ofInput(err error) error {
	e, ok := errors.AsType[*job.Error](err)
	if !ok || e.Code != job.Invalid {
		return err
	}
	moved := *e
	moved.Field = "/input" + e.Field
	return &moved
}

// accepted is the status of an answer to whoever asked for something that may take
// a while.
func accepted(j *job.Job) int {
	if j.State.Ended() {
		return http.StatusOK
	}
	return http.StatusAccepted
}

// request reads all that a submit says. Nothing of it is stored before all of it
// was found good.
func (f *API) request(r *http.Request) (engine.Request, error) {
	if err := api.RequireJSON(r); err != nil {
		return engine.Request{}, err
	}
	key, err := api.IdempotencyKey(r.Header)
	if err != nil {
		return engine.Request{}, err
	}
	body, err := api.ReadBody(r, job.MaxBody)
	if err != nil {
		return engine.Request{}, err
	}
	req, err := f.asked(r, body, submission{})
	if err != nil {
		return engine.Request{}, err
	}
	if key != "" {
		// The same bytes are the same request: a client that repeats one repeats them.
		req.IdempotencyKey, req.Hash = key, sha256.Sum256(body)
	}
	return req, nil
}

// asked is what the JSON of one submit asks for, laid over what it says when it says
// nothing.
func (f *API) asked(r *http.Request, text []byte, s submission) (engine.Request, error) {
	if err := api.DecodeJSON(text, &s); err != nil {
		return engine.Request{}, err
	}
	if s.IdempotencyKey != nil {
		return engine.Request{}, refuse("/idempotency_key", "the key of one job stands in the header Idempotency-Key")
	}
	req, err := f.requestOf(&s)
	req.Owner, req.Trace = gate.Owner(r), api.Traceparent(r)
	return req, err
}

func (f *API) requestOf(s *submission) (engine.Request, error) {
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
	if s.Timeouts != nil || s.Retry != nil || s.AbandonAfterS != nil {
		req.Policy, err = f.policy(s)
	}
	return req, err
}

// policy is the queue's policy with the submitter's on top.
func (f *API) policy(s *submission) (*job.Policy, error) {
	q, err := f.engine.Queue(s.Queue)
	if err != nil {
		return nil, err
	}
	p := q.Policy
	if err := s.Timeouts.over(&p.Timeouts); err != nil {
		return nil, err
	}
	if err := s.Retry.over(&p.Retry); err != nil {
		return nil, err
	}
	if err := s.abandon(&p.Timeouts); err != nil {
		return nil, err
	}
	return &p, nil
}
