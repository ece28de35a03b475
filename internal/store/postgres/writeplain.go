package postgres

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// Most jobs are plain: they have none of what few jobs have, were never lost and go from their
// submit to a claim and to their end. Their statements name only the columns that differ, because
// each column of each row costs the server time. The others have their defaults, or the values that
// the row had. What holds for all rows of a statement is one parameter behind the arrays.
const (
	plainNames    = "id, tenant, usr, queue, key, idem, priority, max_attempts, revision, turn, in_bytes, bytes, policy, extra"
	plainLetters  = "uttttt" + "iiiiii" + "bb"
	grantNames    = "token, process, worker, lease_for, lease_until, lease_used" // what a lease begins with
	grantLetters  = "uutiif"
	plainWait     = "state, lane, queue_by"
	plainWaitType = "iti"
	claimNames    = "revision, attempt, started, start_cursor, earlier_bytes"
	claimLetters  = "iiiii"
	plainEnd      = "state, revision, cursor, out_bytes, bytes, expires"
	plainEndType  = "iiiiii"
)

var (
	insertPlainRunning = &statement{"insert_plain_running", "insert into jobs (n, " + plainNames + ", " + grantNames +
		", state, attempt, created, run_at, started, attempt_at) select u.*, 4, 1, $22::bigint, $22::bigint, $22::bigint, $22::bigint from " +
		unnest("i"+plainLetters+grantLetters) + " u"}
	insertPlainWaiting = &statement{"insert_plain_waiting", "insert into jobs (n, " + plainNames + ", " + plainWait +
		", created, run_at) select u.*, $19::bigint, $19::bigint from " + unnest("i"+plainLetters+plainWaitType) + " u"}
	claimJobs = &statement{"claim_jobs", "update jobs set " + assignments(claimNames+", "+grantNames) +
		", state = 4, lane = null, due = null, queue_by = null, progress = null, attempt_at = $13::bigint, output_at = null, has_output = false from " +
		unnest("i"+claimLetters+grantLetters) + " u (n, " + claimNames + ", " + grantNames + ") where jobs.n = u.n and jobs.n = any($1::bigint[])"}
	endPlain = &statement{"end_plain", "with moved as (delete from jobs j using " + unnest("i"+plainEndType) + " u (n, " + plainEnd + ") where j.n = u.n and j.n = any($1::bigint[]) " +
		"returning u.n, " + prefixed("j.", fixedNames) + ", j.attempt, j.run_at, j.started, " + prefixed("u.", plainEnd) + ") " +
		"insert into ended (n, " + fixedNames + ", attempt, run_at, started, " + plainEnd + ", losses, cleared, finished) select m.*, 0, 0, $8::bigint from moved m"}
)

// plainWrites are the rows of plain jobs.
type plainWrites struct {
	now                           time.Time
	running, waiting, claims, end *table
}

func newPlainWrites(now time.Time) plainWrites {
	return plainWrites{
		now: now, running: newTable("i" + plainLetters + grantLetters), waiting: newTable("i" + plainLetters + plainWaitType),
		claims: newTable("i" + claimLetters + grantLetters), end: newTable("i" + plainEndType),
	}
}

// isPlain reports whether a job has only what plain jobs have.
func isPlain(j *ops.Job) bool {
	return j.Losses == 0 && j.Cleared == 0 && j.Failure == nil && j.Usage == nil && j.CancelRequestedAt.IsZero() && !j.Deleted &&
		codec.EncodeProgress(j.Progress) == nil
}

// insert adds a new job that is plain, or reports that it is not.
func (w *plainWrites) insert(e *entry) bool {
	j, l := e.job, &e.job.Lease
	running := j.State == job.Running
	if !isPlain(j) || j.Resource != "" || j.Tally != "" || j.FileCount > 0 || j.Cursor > 0 || !j.CreatedAt.Equal(w.now) || !j.RunAt.Equal(w.now) ||
		running && (j.Attempt != 1 || !j.StartedAt.Equal(w.now) || !l.AttemptStartedAt.Equal(w.now)) ||
		!running && (!e.queued || j.Attempt > 0 || !j.StartedAt.IsZero()) {
		return false
	}
	if !running {
		w.addPlain(w.waiting, e)
		w.waiting.int(int64(j.State)).text(e.lane).time(e.queueBy)
		return true
	}
	w.addPlain(w.running, e)
	addGrant(w.running, l)
	return true
}

func (w *plainWrites) addPlain(t *table, e *entry) {
	j := e.job
	t.int(j.N).uuid(j.ID).text(j.Owner.Tenant).text(j.Owner.User).text(j.Queue).text(j.Job.Key).textOrNull(j.IdempotencyKey, j.IdempotencyKey != "").
		int(int64(j.Priority)).int(int64(j.MaxAttempts)).int(j.Revision).int(j.Turn).int(j.InputBytes).int(e.bytes).
		blob(codec.EncodePolicy(j.Policy)).bytes(e.extra)
}

func addGrant(t *table, l *ops.Lease) {
	t.uuid(l.Token).uuid(l.Process).text(l.Worker).int(int64(l.For / time.Millisecond)).int(l.Until.UnixMicro()).flag(l.Used)
}

// claim adds a waiting job that was claimed.
func (w *plainWrites) claim(e *entry) {
	j, l := e.job, &e.job.Lease
	w.claims.int(j.N).int(j.Revision).int(int64(j.Attempt)).time(j.StartedAt).int(l.StartCursor).int(l.EarlierOutputBytes)
	addGrant(w.claims, l)
}

// finish adds an unfinished job that has ended and is plain, or reports that it is not.
func (w *plainWrites) finish(e *entry) bool {
	j := e.job
	if e.change&^(changedOutput|changedLease) != changedEnd || !isPlain(j) || !j.FinishedAt.Equal(w.now) {
		return false
	}
	w.end.int(j.N).int(int64(j.State)).int(j.Revision).int(j.Cursor).int(j.OutputBytes).int(e.bytes).time(j.ExpiresAt)
	return true
}
