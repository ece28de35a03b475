package engine

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// opBytes is what an op weighs besides its data.
const opBytes = 256

// Request asks for a job.
type Request struct {
	// ID is the job's id where the caller made one, to name the job in its own Rows;
	// zero for a new one.
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
	// IdempotencyKey makes the request apply once; "" for none. Hash is the hash of
	// all that was asked.
	IdempotencyKey string
	Hash           [32]byte
	// Files came with the request and are on disk already, under ID. When the job is not
	// stored, or another answers for it, they are removed.
	Files []job.File
	Trace string // a traceparent, or ""
	// Rows are a face's own rows, stored with the job or not at all.
	Rows []store.Row
	Refs []string
	// Tally is [job.Job.Tally].
	Tally string
}

// prepare makes the op of a request, and refuses what would not be stored.
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
	if q.Check != nil {
		if err := q.Check(r.Input); err != nil {
			return nil, err
		}
	}
	if len(r.Files) > 0 && r.ID == (job.ID{}) {
		return nil, job.Errorf(job.Internal, "files that belong to no job")
	}
	op := &store.Submit{Job: r.job(&q), Input: r.Input, Delay: r.Delay, Rows: r.Rows}
	if r.IdempotencyKey != "" {
		op.Idempotency = &store.Idempotency{Key: r.IdempotencyKey, Hash: r.Hash, Keep: e.idempotencyTTL}
	}
	return op, nil
}

// job is the job that a request asks for, with the queue's word where it is silent.
func (r *Request) job(q *Queue) job.Job {
	j := job.Job{
		ID: r.ID, Owner: r.Owner, Queue: r.Queue, Key: r.Key, Priority: r.Priority,
		MaxAttempts: r.MaxAttempts, Metadata: r.Metadata, Policy: q.Policy, Refs: r.Refs, Tally: r.Tally,
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
		j.MaxAttempts = q.MaxAttempts
	}
	if r.Policy != nil {
		j.Policy = *r.Policy
	}
	j.Policy.Keep = job.Keep{Failed: q.KeepFailed, Others: q.Keep}
	return j
}

// weight is what a submit takes of the room for what waits to be written.
func submitSize(op *store.Submit) int {
	size := opBytes + len(op.Input)
	for i := range op.Rows {
		size += len(op.Rows[i].Body)
	}
	return size
}
