package postgres

import (
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

const (
	// commonColumns are the columns that scanCommon reads, of unfinished and of ended jobs.
	commonColumns = `n, id, tenant, usr, queue, key, priority, state, attempt, max_attempts, losses, cleared, revision,
	created, run_at, started, cancel_at, cursor, out_bytes, in_bytes, bytes, files, idem, progress, failure, usage, policy, extra`
	// leaseColumns are those that scanUnfinished reads after the common ones.
	leaseColumns = `turn, deleted, token, process, worker, lease_for, lease_until, lease_used, attempt_at, output_at,
	start_cursor, earlier_bytes, has_output, lane, queue_by`
	turnColumn        = 28 // the index of turn among commonColumns and leaseColumns
	unfinishedColumns = 43 // how many columns those are
	// endColumns are those that scanEnded reads after the common ones.
	endColumns = "finished, expires"
)

// errDamagedRow means that a job's row cannot be decoded completely.
var errDamagedRow = errors.New("postgres: a job's row is damaged")

func (e *entry) scanCommon(r *record) error {
	j := e.job
	j.N = r.int()
	j.ID = r.uuid()
	j.Owner = job.Owner{Tenant: r.text(), User: r.text()}
	j.Queue, j.Job.Key = r.text(), r.text()
	j.Priority, j.State = int(r.int()), job.State(r.int())
	j.Attempt, j.MaxAttempts, j.Losses, j.Cleared = int(r.int()), int(r.int()), int(r.int()), int(r.int())
	j.Revision = r.int()
	j.CreatedAt, j.RunAt, j.StartedAt, j.CancelRequestedAt = r.time(), r.time(), r.time(), r.time()
	j.Cursor, j.OutputBytes, j.InputBytes = r.int(), r.int(), r.int()
	e.bytes = r.int()
	j.FileCount = int(r.int())
	j.IdempotencyKey = r.text()
	progress, failure, usage := r.raw(), r.raw(), r.bytes()
	j.Usage = usage
	policy, extra := r.raw(), r.raw()
	var errs [4]error
	j.Progress, errs[0] = codec.DecodeProgress(progress)
	j.Failure, errs[1] = codec.DecodeFailure(failure)
	j.Policy, errs[2] = codec.DecodePolicy(policy)
	errs[3] = codec.DecodeExtra(extra, &j.Job)
	for _, err := range errs {
		if err != nil {
			return errors.Join(errDamagedRow, err)
		}
	}
	return nil
}

// scanUnfinished reads a row of the table jobs.
func scanUnfinished(r *record) *entry {
	j := &ops.Job{}
	e := &entry{job: j, stored: unfinished, place: unfinished}
	damage := e.scanCommon(r)
	j.Turn, j.Deleted = r.int(), r.flag()
	l := &j.Lease
	l.Token, l.Process = r.uuid(), r.uuid()
	l.Worker = r.text()
	l.For = time.Duration(r.int()) * time.Millisecond
	l.Until, l.Used = r.time(), r.flag()
	l.AttemptStartedAt, l.LastOutputAt = r.time(), r.time()
	l.StartCursor, l.EarlierOutputBytes, l.HasOutput = r.int(), r.int(), r.flag()
	if j.State != job.Running {
		j.Lease = ops.Lease{}
	}
	e.queued = !r.null()
	e.lane = r.text()
	e.queueBy = r.time()
	if j.Damaged = damage != nil; j.Damaged && e.queued {
		_, _, j.Resource = ops.ParseLane(e.lane)
	}
	return e
}

// scanEnded reads a row of the table ended.
func scanEnded(r *record) *entry {
	j := &ops.Job{}
	e := &entry{job: j, stored: ended, place: ended}
	j.Damaged = e.scanCommon(r) != nil
	j.FinishedAt, j.ExpiresAt = r.time(), r.time()
	return e
}
