package engine

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// opBytes is the assumed size of an op without its data.
const opBytes = 256

// Request describes a job to submit.
type Request struct {
	// ID is the job's id; zero makes a new one. A caller whose Rows name the job makes the id
	// itself.
	ID          job.ID
	Owner       job.Owner
	Queue       string
	Key         string
	Priority    int // 0 for the default
	Input       []byte
	Delay       time.Duration
	MaxAttempts int         // 0 for the queue's
	Policy      *job.Policy // nil for the queue's
	Metadata    map[string]string
	// IdempotencyKey makes repeated requests create one job; "" for none. Hash is the hash of
	// the whole request: the same key with another hash is refused.
	IdempotencyKey string
	Hash           [32]byte
	// Files are the files of the request, already on disk under ID. The caller removes them
	// if the job is not stored or an existing job answers the request.
	Files []job.File
	Trace string // a traceparent, or ""
	// Rows are side rows of the calling API. They are stored with the job or not at all.
	Rows []store.Row
	Refs []string // see [job.Job.Refs]
	// Callback is the receiver that the request names; nil for the one of its queue, if any.
	Callback *job.Callback
	// See [job.Job.Tally].
	Tally string
}

// prepare makes the op of a request. It refuses a request that cannot be stored.
func (e *Engine) prepare(r *Request) (*store.Submit, error) {
	if e.stopping.Load() {
		return nil, &job.Error{Code: job.ShuttingDown, Message: "the server is stopping", RetryAfter: retrySoon}
	}
	if err := e.writable(); err != nil {
		return nil, err
	}
	q, err := e.Queue(r.Queue)
	if err != nil {
		return nil, err
	}
	if q.Internal {
		return nil, job.Errorf(job.Forbidden, "the queue %s takes no submits: the server makes its jobs itself", job.Quote(q.Name))
	}
	if q.MaxInput > 0 && len(r.Input) > q.MaxInput {
		return nil, &job.Error{Code: job.TooLarge, Field: "/input", Message: fmt.Sprintf("the input has %d bytes; the queue %s takes at most %d", len(r.Input), job.Quote(q.Name), q.MaxInput)}
	}
	if q.Check != nil {
		if err := q.Check(r.Metadata, r.Input); err != nil {
			return nil, err
		}
	}
	if q.CheckFiles != nil {
		if err := q.CheckFiles(r.Input, r.Files); err != nil {
			return nil, err
		}
	}
	if len(r.Files) > 0 && r.ID == (job.ID{}) {
		return nil, job.Errorf(job.Internal, "files need the id of their job")
	}
	j := r.job(&q)
	if err := q.Ceilings.Check(&j, r.Delay); err != nil {
		return nil, err
	}
	if e.refs != nil {
		more, err := e.refs(r.Owner.Tenant, cmp.Or(r.Callback, q.Callback))
		if err != nil {
			return nil, err
		}
		j.Refs = append(slices.Clip(j.Refs), more...)
	}
	op := &store.Submit{Job: j, Input: r.Input, Delay: r.Delay, Rows: r.Rows}
	if q.Resource != nil {
		op.Job.Resource = q.Resource(r.Input)
	}
	if r.IdempotencyKey != "" {
		op.Idempotency = &store.Idempotency{Key: r.IdempotencyKey, Hash: r.Hash, Keep: e.idempotencyTTL}
	}
	return op, nil
}

// CheckRequest returns why a request can never be stored; nil if it may be. What is over a limit
// for a while is no reason.
func (e *Engine) CheckRequest(r Request) error {
	_, err := e.prepare(&r)
	switch job.CodeOf(err) {
	case job.ShuttingDown, job.Unavailable:
		return nil
	}
	return err
}

// job makes the job of a request. Settings that the request does not set come from the queue.
func (r *Request) job(q *Queue) job.Job {
	maxAttempts, policy := q.DefaultsFor(r.Metadata)
	j := job.Job{
		ID: r.ID, Owner: r.Owner, Queue: r.Queue, Key: r.Key, Priority: r.Priority,
		MaxAttempts: r.MaxAttempts, Metadata: r.Metadata, Policy: policy, Refs: r.Refs, Tally: r.Tally,
		Files: r.Files, InputBytes: int64(len(r.Input)), Trace: r.Trace,
	}
	for i := range r.Files {
		j.InputBytes += r.Files[i].Size
	}
	if j.ID == (job.ID{}) {
		j.ID = job.NewID()
	}
	if j.Priority == 0 {
		j.Priority = job.DefaultPriority
	}
	if j.MaxAttempts == 0 {
		j.MaxAttempts = maxAttempts
	}
	if r.Policy != nil {
		j.Policy = *r.Policy
	}
	j.Policy.Keep = job.Keep{Failed: q.KeepFailed, Others: q.Keep}
	return j
}

// submitSize is the size of a submit in bytes, as the lanes and the disk count it.
func submitSize(op *store.Submit) int {
	size := opBytes + len(op.Input)
	for i := range op.Rows {
		size += len(op.Rows[i].Body)
	}
	return size
}
