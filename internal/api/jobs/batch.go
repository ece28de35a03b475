package jobs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// batch is the body of POST /v1/jobs/batch. A job that cannot be read is refused
// like any other: by itself, unless the batch is atomic.
type batch struct {
	Jobs   api.Items[submission] `json:"jobs"`
	Atomic bool                  `json:"atomic"` // all or none

	key string // of the header; the keys of the jobs are made of it
}

// submitBatch stores several jobs: 200 once all that were not refused are on disk,
// with what became of each, in their order.
func (f *API) submitBatch(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	prefer, err := api.ParsePrefer(r.Header)
	if err != nil {
		return err
	}
	if prefer.Wait > 0 {
		return job.Errorf(job.Invalid, "a batch is answered once its jobs are on disk: leave out Prefer: wait, and follow each job by its own URLs")
	}
	became, err := f.receiveBatch(r)
	if err != nil {
		return err
	}
	prefer.Apply(w.Header())
	if allExisting(became) {
		w.Header()["Idempotent-Replay"] = []string{"true"}
	}
	for i := range became {
		if job.CodeOf(became[i].Err) == job.Internal {
			f.log.Error("a job of a batch failed to be stored", "request_id", w.Header().Get("X-Request-ID"), "error", became[i].Err)
		}
	}
	f.answerBatch(w, became, func(j *job.Job) string { return f.watchURL(r, prefer, j) })
	return nil
}

// receiveBatch reads a batch and has it stored, while there is room for its body. That
// is free again before the answer, after which the client may send another.
func (f *API) receiveBatch(r *http.Request) ([]engine.SubmitResult, error) {
	if err := f.intake.enter(r.ContentLength); err != nil {
		return nil, err
	}
	defer f.intake.leave(r.ContentLength)
	b, err := readBatch(r)
	if err != nil {
		return nil, err
	}
	return f.storeBatch(r, b)
}

// readBatch reads a batch, of which single jobs may be wrong.
func readBatch(r *http.Request) (*batch, error) {
	b := &batch{Jobs: api.Items[submission]{Max: job.MaxBatch}}
	if err := api.RequireJSON(r); err != nil {
		return nil, err
	}
	var err error
	if b.key, err = api.IdempotencyKey(r.Header); err != nil {
		return nil, err
	}
	if err := api.ReadJSON(r, job.MaxBatchBody, b); err != nil {
		return nil, err
	}
	return b, b.check()
}

// check looks at what is of the batch and not of one job.
func (b *batch) check() error {
	n := len(b.Jobs.Elements)
	switch longest := b.keyOf(job.MaxBatch - 1); {
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

// keyOf is the idempotency key that the batch's own gives a job.
func (b *batch) keyOf(i int) string { return b.key + "/" + strconv.Itoa(i) }

// storeBatch has the engine store what may be stored, and says what became of each.
func (f *API) storeBatch(r *http.Request, b *batch) ([]engine.SubmitResult, error) {
	became := make([]engine.SubmitResult, len(b.Jobs.Elements))
	requests := make([]engine.Request, 0, len(became))
	places := make([]int, 0, len(became)) // of the requests
	owner, trace := gate.Owner(r), api.Traceparent(r)
	for i := range became {
		req, err := f.requestOfItem(b, i)
		if err != nil {
			became[i].Err = ofItem(i, err)
			continue
		}
		req.Owner, req.Trace = owner, trace
		requests, places = append(requests, req), append(places, i)
	}
	if len(requests) == 0 || b.Atomic && len(requests) < len(became) {
		return became, b.refusal(became)
	}
	answers, err := f.engine.SubmitMany(r.Context(), requests, b.Atomic)
	if err != nil {
		return nil, err
	}
	for n, i := range places {
		became[i] = answers[n]
		became[i].Err = ofItem(i, ofInput(answers[n].Err))
	}
	return became, b.refusal(became)
}

// requestOfItem is what one job of the batch asks for.
func (f *API) requestOfItem(b *batch, i int) (engine.Request, error) {
	it := &b.Jobs.Elements[i]
	if it.Err != nil {
		return engine.Request{}, it.Err
	}
	req, err := f.requestOf(&it.Value)
	if err != nil {
		return engine.Request{}, err
	}
	req.Input = bytes.Clone(req.Input) // a job that runs for long is not to hold the whole body
	switch own := it.Value.IdempotencyKey; {
	case own != nil && !api.ValidIdempotencyKey(*own):
		return engine.Request{}, refuse("/idempotency_key", "idempotency_key is a text of 1 to %d printable ASCII characters", job.MaxKey)
	case own != nil:
		req.IdempotencyKey, req.Hash = *own, sha256.Sum256(it.Text)
	case b.key != "":
		req.IdempotencyKey, req.Hash = b.keyOf(i), sha256.Sum256(it.Text)
	}
	return req, nil
}

func itemPointer(i int) string { return "/jobs/" + strconv.Itoa(i) }

// ofItem points a refusal of one job to where it stands in the batch.
func ofItem(i int, err error) error {
	e, ok := errors.AsType[*job.Error](err)
	if !ok {
		return err
	}
	moved := *e
	moved.Field = itemPointer(i) + e.Field
	return &moved
}

// mostBlamed bounds how many of an atomic batch's refused jobs its answer lists.
const mostBlamed = 20

// refusal is why an atomic batch was not stored: the first job that is to blame,
// and a list of them. Jobs that were only refused because of others are not in it.
func (b *batch) refusal(became []engine.SubmitResult) error {
	if !b.Atomic {
		return nil
	}
	var t *api.BatchError
	for i := range became {
		err := became[i].Err
		if err == nil || job.CodeOf(err) == job.BatchRefused {
			continue
		}
		if t == nil {
			t = &api.BatchError{First: err}
		}
		if len(t.Errors) < mostBlamed {
			t.Errors = append(t.Errors, api.ItemErrorOf(err))
		}
	}
	if t == nil {
		return nil
	}
	return t
}

func allExisting(became []engine.SubmitResult) bool {
	for i := range became {
		if !became[i].Existing {
			return false
		}
	}
	return true
}

// usualAnswer is what most jobs take in an answer, in bytes.
const usualAnswer = 1 << 10

// answerBatch writes each job, or why it was refused.
func (f *API) answerBatch(w http.ResponseWriter, became []engine.SubmitResult, watch func(*job.Job) string) {
	f.answer(w, http.StatusOK, func(b []byte) []byte {
		b = append(slices.Grow(b, len(became)*usualAnswer), `{"object":"list","data":[`...)
		for i := range became {
			b = comma(b, i)
			if err := became[i].Err; err != nil {
				b = appendRefusal(b, err)
				continue
			}
			b = appendJob(b, &became[i].Job, &became[i].Snapshot, watch(&became[i].Job))
		}
		return append(b, "]}"...)
	})
}

// appendRefusal writes a problem as one of many; what would be the header
// Retry-After stands in it.
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

// intake bounds the memory that the bodies of batches take while they arrive and
// are stored. The zero value is ready.
type intake struct{ bytes atomic.Int64 }

const mostIntake = 8 * job.MaxBatchBody

// enter counts a body in by its declared length, or as the longest where none was
// declared. What is too long is left to its reader to refuse.
func (n *intake) enter(declared int64) error {
	if n.bytes.Add(weight(declared)) <= mostIntake {
		return nil
	}
	n.leave(declared)
	return &job.Error{Code: job.Overloaded, Message: "the server is reading as many batches as it may at once", RetryAfter: time.Second}
}

func (n *intake) leave(declared int64) { n.bytes.Add(-weight(declared)) }

func weight(declared int64) int64 {
	if declared < 0 || declared > job.MaxBatchBody {
		return job.MaxBatchBody
	}
	return declared
}
