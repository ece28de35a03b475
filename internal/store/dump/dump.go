// Package dump has the rows of a store as values, so that one store can read them and another can
// write them. A value has everything that a store keeps of the row. What stores keep as bytes of
// package codec stays as it is, also where it is damaged.
package dump

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// Job is a job without its bodies. Its number N and its turn stay the same in another store, so
// that the order of waiting jobs does.
type Job struct {
	ops.Job
	Raw Raw
	// Lane is the lane of a queued or parked job. InLane is false for all others.
	Lane   string
	InLane bool
	// Due is when a scheduled job becomes ready; QueueBy is when a waiting one expires.
	Due, QueueBy time.Time
	InputLength  int64 // of the input, in bytes
	ResultLength int64 // of the result; -1 for none
}

// Raw has the columns of a job that package codec encodes. Nil is NULL.
type Raw struct {
	Policy, Extra, Progress, Failure []byte
	// Code is the code of the failure; nil if there is none or it is damaged.
	Code *string
}

// Result is the result of a job.
type Result struct {
	ContentType string
	Body        []byte
}

// Entry is an entry of a job's output. Total is the number of bytes of data up to and with it.
type Entry struct {
	job.Entry
	Total int64
}

// Key is an idempotency key.
type Key struct {
	Owner job.Owner
	Key   string
	ops.KeyUse
}

// Leftover is an idempotency key that outlives its job.
type Leftover struct {
	Owner job.Owner
	Key   string
	Until time.Time
}

// Deleted is the record of a delete.
type Deleted struct {
	ID    job.ID
	Owner job.Owner
	Until time.Time
}

// Row is a side row.
type Row struct {
	store.RowSet
	ID   string
	Body []byte
}

// Kept is the number of bytes that an owner keeps besides jobs.
type Kept struct {
	Owner job.Owner
	Bytes int64
}

// Tally has the counts of a named group of jobs. Jobs is the number of those that are stored.
type Tally struct {
	Owner  job.Owner
	Name   string
	Jobs   int64
	Counts job.Counts
}

// Presence is the abandon timeout of an unfinished job.
type Presence struct {
	ID    job.ID
	N     int64
	Owner job.Owner
	After time.Duration
	Until time.Time
}

// Queue has the counts of a queue, and whether it is paused.
type Queue struct {
	Name   string
	Counts job.Counts
}
