package engine

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

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

// SubmitResult is what became of one request of several.
type SubmitResult struct {
	Snapshot
	Existing bool // the idempotency key was known
	Err      error
}

// Verb is what can be done to many jobs at once.
type Verb uint8

// The verbs.
const (
	CancelAll Verb = 1 + iota
	RetryAll
	DeleteAll
)

// Snapshot is a job as it is shown: the job itself and what is known around it.
type Snapshot struct {
	job.Job
	Position int           // how many jobs of its queue will run before it; 0 unless queued
	Estimate time.Duration // until it has ended, from now; 0 when unknown or ended
	// HeldBackBy is why a waiting job is not given to a worker; "" when nothing holds it
	// back. What another process changed shows in about a second.
	HeldBackBy job.HeldBackBy
	Text       string      // said so far in this attempt, at most job.MaxInline bytes
	Result     *job.Result // of a succeeded job, when at most job.MaxInline bytes
}

// Update is what a watcher is told next.
type Update = watch.Update

// QueueView is a queue as it is shown.
type QueueView struct {
	Queue
	Counts job.Counts
	// OldestQueued is for how long the job has been ready that has waited longest,
	// queued or parked.
	OldestQueued time.Duration
	// HeldBackBy is why the next queued job is not given to a worker, or would not be if
	// none is queued; "" when nothing holds it back. See [Snapshot].
	HeldBackBy job.HeldBackBy
	// Wait and Run are what a job submitted now would wait and run, learned from what
	// really happened; zero before the first job ended. Nobody knows the wait in a
	// paused queue.
	Wait, Run time.Duration
}

// RowConflict is the row that a submit's [store.Insert] met.
type RowConflict struct{ Body []byte }

func (c *RowConflict) Error() string { return "the row is there already" }
