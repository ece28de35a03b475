package sqlite

import (
	"errors"
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

// jobColumns are the columns that scanJob reads, in its order. Code that reads a column by
// number depends on that order.
const jobColumns = `n, id, tenant, usr, queue, key, priority, state, attempt, max_attempts,
	cursor, out_bytes, progress, failure, usage, policy, extra,
	created, run_at, started, finished, cancel_at, expires, in_bytes, files, revision, losses, cleared`

const afterJobColumns = 28 // the first column after jobColumns

// row is a job with the columns that are not part of [job.Job].
type row struct {
	job.Job
	n     int64 // the row number
	files int   // the number of files, which is known even if their names are damaged
}

func scanRow(c column) (row, error) {
	j, err := scanJob(c)
	return row{j, c.int(0), int(c.int(24))}, err
}

// scanJob decodes a job. Together with an error it returns all fields that are not damaged.
func scanJob(c column) (j job.Job, err error) {
	j = job.Job{
		ID:          c.id(1),
		Owner:       job.Owner{Tenant: c.text(2), User: c.text(3)},
		Queue:       c.text(4),
		Key:         c.text(5),
		Priority:    int(c.int(6)),
		State:       job.State(c.int(7)),
		Attempt:     int(c.int(8)),
		MaxAttempts: int(c.int(9)),
		Cursor:      c.int(10),
		OutputBytes: c.int(11),
		Usage:       c.bytes(14),
		CreatedAt:   c.time(17), RunAt: c.time(18), StartedAt: c.time(19), FinishedAt: c.time(20),
		CancelRequestedAt: c.time(21), ExpiresAt: c.time(22),
		InputBytes: c.int(23),
		Revision:   c.int(25),
		Losses:     int(c.int(26)), Cleared: int(c.int(27)),
	}
	var damage [4]error
	j.Policy, damage[0] = codec.DecodePolicy(c.bytes(15))
	damage[1] = codec.DecodeExtra(c.bytes(16), &j)
	j.Progress, damage[2] = codec.DecodeProgress(c.bytes(12))
	j.Failure, damage[3] = codec.DecodeFailure(c.bytes(13))
	if failed := errors.Join(damage[:]...); failed != nil {
		return j, fmt.Errorf("%w: %s: %w", errDamagedRow, j.ID, failed)
	}
	return j, nil
}

// failure binds a failure and its code, which lists select by; nil is NULL.
func (q *query) failure(f *job.Failure) *query {
	if f == nil {
		return q.null().null()
	}
	return q.bytes(codec.EncodeFailure(f)).text(f.Code)
}

// roundTime rounds a time to the microseconds that the store keeps.
func roundTime(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()) }
