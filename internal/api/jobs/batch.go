package jobs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// batch is the body of POST /v1/jobs/batch. A job that cannot be decoded is refused alone,
// unless the batch is atomic.
type batch struct {
	Jobs   api.Items[submission] `json:"jobs"`
	Atomic bool                  `json:"atomic"` // all or none

	key string // the Idempotency-Key header; each job's key is made from it
}

// submitBatch stores several jobs. It writes 200 once all jobs that were not refused are on
// disk, with the result of each in their order.
func (a *API) submitBatch(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	prefer, err := api.ParsePrefer(r.Header)
	if err != nil {
		return err
	}
	if prefer.Wait > 0 {
		return job.Errorf(job.Invalid, "a batch is answered once its jobs are on disk: leave out Prefer: wait, and follow each job by its own URLs")
	}
	b, err := a.readBatch(r)
	if err != nil {
		return err
	}
	results, err := a.storeBatch(r, b)
	if err != nil {
		return err
	}
	prefer.Apply(w.Header())
	if allExisting(results) {
		w.Header()["Idempotent-Replay"] = []string{"true"}
	}
	for i := range results {
		// The status is 200, so Wrap does not log these.
		if job.CodeOf(results[i].Err) == job.Internal {
			a.log.Error("a job of a batch failed to be stored", "request_id", w.Header().Get("X-Request-ID"), "error", results[i].Err)
		}
	}
	a.writeBatch(w, r, results, func(j *job.Job) string { return a.watchURL(r, prefer, j) })
	return nil
}

// readBatch reads a batch. Single jobs may be invalid.
func (a *API) readBatch(r *http.Request) (*batch, error) {
	b := &batch{Jobs: api.Items[submission]{Max: job.MaxBatch}}
	if err := api.RequireJSON(r); err != nil {
		return nil, err
	}
	var err error
	if b.key, err = api.IdempotencyKey(r.Header); err != nil {
		return nil, err
	}
	body, err := api.ReadBody(r, a.maxBatch)
	if err != nil {
		return nil, err
	}
	if err := api.DecodeJSON(body, b); err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	// itemRequest copies the inputs, which together may be as long as the body.
	return b, api.AllowanceOf(r).Reserve(int64(len(body)))
}

// check checks the batch, but not its single jobs.
func (b *batch) check() error {
	n := len(b.Jobs.Elements)
	switch longest := b.itemKey(job.MaxBatch - 1); {
	case n == 0:
		return refuse("/jobs", "jobs is missing or empty: it is a list of 1 to %d jobs, each as in POST /v1/jobs", job.MaxBatch)
	case b.key == "":
		return nil
	case len(longest) > job.MaxKey:
		return job.Errorf(job.Invalid, "the Idempotency-Key of a batch has at most %d characters", job.MaxKey-len(longest)+len(b.key))
	}
	for i := range b.Jobs.Elements {
		if b.Jobs.Elements[i].Value.IdempotencyKey != nil {
			return refuse(itemPointer(i)+"/idempotency_key", "the header Idempotency-Key gives every job of the batch its key: leave out one or the other")
		}
	}
	return nil
}

// itemKey returns the idempotency key of job i, made from the key of the batch.
func (b *batch) itemKey(i int) string { return b.key + "/" + strconv.Itoa(i) }

// storeBatch submits the valid jobs to the engine and returns a result for each job of the
// batch.
func (a *API) storeBatch(r *http.Request, b *batch) ([]engine.SubmitResult, error) {
	results := make([]engine.SubmitResult, len(b.Jobs.Elements))
	requests := make([]engine.Request, 0, len(results))
	positions := make([]int, 0, len(results)) // positions[n] is the place of requests[n] in the batch
	caller, trace := gate.CallerFrom(r), api.Traceparent(r)
	for i := range results {
		req, err := a.itemRequest(b, i)
		if err == nil {
			err = claim(caller, &req)
		}
		if err != nil {
			results[i].Err = atItem(i, err)
			continue
		}
		req.Trace = trace
		requests, positions = append(requests, req), append(positions, i)
	}
	if len(requests) == 0 || b.Atomic && len(requests) < len(results) {
		return results, b.atomicError(results)
	}
	answers, err := a.engine.SubmitMany(r.Context(), requests, b.Atomic)
	if err != nil {
		return nil, err
	}
	// The answers of the engine are in the order of the valid jobs. Put each one at its place
	// in the batch.
	for n, i := range positions {
		results[i] = answers[n]
		results[i].Err = atItem(i, atInput(answers[n].Err))
	}
	return results, b.atomicError(results)
}

// itemRequest returns the request of job i.
func (a *API) itemRequest(b *batch, i int) (engine.Request, error) {
	it := &b.Jobs.Elements[i]
	if it.Err != nil {
		return engine.Request{}, it.Err
	}
	req, err := a.newRequest(&it.Value)
	if err != nil {
		return engine.Request{}, err
	}
	// A job that runs for long must not keep the whole body of the batch in memory.
	req.Input = bytes.Clone(req.Input)
	switch own := it.Value.IdempotencyKey; {
	case own != nil && !api.ValidIdempotencyKey(*own):
		return engine.Request{}, refuse("/idempotency_key", "idempotency_key is a text of 1 to %d printable ASCII characters", job.MaxKey)
	case own != nil:
		req.IdempotencyKey, req.Hash = *own, sha256.Sum256(it.Text)
	case b.key != "":
		req.IdempotencyKey, req.Hash = b.itemKey(i), sha256.Sum256(it.Text)
	}
	return req, nil
}

func itemPointer(i int) string { return "/jobs/" + strconv.Itoa(i) }

// atItem makes the Field of an error about job i relative to the batch.
func atItem(i int, err error) error {
	e, ok := errors.AsType[*job.Error](err)
	if !ok {
		return err
	}
	moved := *e
	moved.Field = itemPointer(i) + e.Field
	return &moved
}

// maxListed is how many refused jobs the error of an atomic batch lists.
const maxListed = 20

// atomicError returns why an atomic batch was not stored: an [api.BatchError] with the refused
// jobs. It leaves out the jobs that were refused only because of others.
func (b *batch) atomicError(results []engine.SubmitResult) error {
	if !b.Atomic {
		return nil
	}
	var t *api.BatchError
	for i := range results {
		err := results[i].Err
		if err == nil || job.CodeOf(err) == job.BatchRefused {
			continue
		}
		if t == nil {
			t = &api.BatchError{First: err}
		}
		if len(t.Errors) < maxListed {
			t.Errors = append(t.Errors, api.ItemErrorOf(err))
		}
	}
	if t == nil {
		return nil
	}
	return t
}

func allExisting(results []engine.SubmitResult) bool {
	for i := range results {
		if !results[i].Existing {
			return false
		}
	}
	return true
}

// typicalJob is the size of most jobs in a response, in bytes.
const typicalJob = 1 << 10

// writeBatch writes each job, or why it was refused.
func (a *API) writeBatch(w http.ResponseWriter, r *http.Request, results []engine.SubmitResult, watch func(*job.Job) string) {
	caller := gate.CallerFrom(r)
	a.writeJSON(w, http.StatusOK, func(b []byte) []byte {
		b = append(slices.Grow(b, len(results)*typicalJob), `{"object":"list","data":[`...)
		for i := range results {
			b = comma(b, i)
			if err := results[i].Err; err != nil {
				b = appendRefusal(b, err)
				continue
			}
			b = appendJobFor(caller, b, &results[i].Job, &results[i].Snapshot, watch(&results[i].Job))
		}
		return append(b, "]}"...)
	})
}

// appendRefusal appends the problem of one job. retry_after_s has the value of the header
// Retry-After.
func appendRefusal(b []byte, err error) []byte {
	p := api.ProblemOf(err)
	b = appendString(append(b, `{"object":"error","type":`...), p.Type)
	b = appendString(append(b, `,"title":`...), p.Title)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(p.Status), 10)
	b = appendString(append(b, `,"detail":`...), p.Detail)
	b = appendString(append(b, `,"code":`...), string(p.Code))
	b = appendString(append(b, `,"field":`...), p.Field)
	if s := api.RetryAfter(err); s > 0 {
		b = strconv.AppendInt(append(b, `,"retry_after_s":`...), int64(s), 10)
	}
	return append(b, '}')
}
