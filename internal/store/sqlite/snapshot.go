package sqlite

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
	"github.com/meanwhile-run/meanwhile/internal/store/dump"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// Snapshot reads everything that a database has, as values for another store. It shows one moment
// and changes nothing. One goroutine uses it.
type Snapshot struct {
	q    snapshotQueries
	ring *sealed.Ring
	now  time.Time
	tail map[int64][]tailRow // by row number of the job
}

type snapshotQueries struct {
	rollback, jobs, inputSize, resultSize, input, result, output, tail, outputEnd *query
	keys, leftovers, deleted, rows, kept, tallies, presence, queues               *query
	applied, idSkew, counts                                                       *query
}

// tailRow is a row of the table tail.
type tailRow struct {
	seq, total     int64
	progress, data []byte
}

// OpenSnapshot opens the database at path, which must have all migrations: see [Open]. As after an
// opening, the clocks of running attempts start at now.
func OpenSnapshot(ctx context.Context, path string, now time.Time, ring *sealed.Ring) (*Snapshot, error) {
	conn, err := openToRead(path)
	if err != nil {
		return nil, explain(path, err)
	}
	conn.SetInterrupt(ctx.Done())
	s := &Snapshot{now: roundTime(now), ring: ring, tail: map[int64][]tailRow{}}
	s.prepare(func(sql string) *query { return newQuery(conn, sql) })
	if err = sqlitex.ExecuteTransient(conn, "BEGIN", nil); err == nil {
		err = s.readTail()
	}
	if err != nil {
		_ = conn.Close()
		return nil, explain(path, err)
	}
	return s, nil
}

// snapshotCounts are the columns of counts that queues and tallies have.
const snapshotCounts = "scheduled, queued, parked, running, succeeded, failed, cancelled, expired, retried, waiting_bytes"

func (s *Snapshot) prepare(of func(sql string) *query) {
	s.q = snapshotQueries{
		rollback: of("ROLLBACK"),
		jobs: of("SELECT " + jobColumns + `, turn, lane, due, queue_by, idem, deleted, code, lease, worker, lease_until, lease_for, lease_used, process
			FROM jobs WHERE n > ? ORDER BY n`),
		inputSize:  of("SELECT " + plainLength + " FROM inputs WHERE n = ?"),
		resultSize: of("SELECT " + plainLength + " FROM results WHERE n = ?"),
		input:      of("SELECT body FROM inputs WHERE n = ?"),
		result:     of("SELECT content_type, body FROM results WHERE n = ?"),
		output:     of("SELECT seq, total, kind, attempt, events, data FROM output WHERE job = ? ORDER BY seq"),
		outputEnd:  of(outputEndSQL),
		tail:       of("SELECT job, seq, total, progress, data FROM tail ORDER BY n"),
		keys:       of("SELECT tenant, usr, key, job, hash, until FROM idempotency ORDER BY tenant, usr, key"),
		leftovers:  of("SELECT tenant, usr, key, until FROM leftovers ORDER BY rowid"),
		deleted:    of("SELECT id, tenant, usr, until FROM deleted ORDER BY id"),
		rows:       of("SELECT tenant, usr, kind, parent, id, body FROM records ORDER BY tenant, usr, kind, parent, id"),
		kept:       of("SELECT tenant, usr, bytes FROM owners ORDER BY tenant, usr"),
		tallies:    of("SELECT " + snapshotCounts + ", tenant, usr, name, rows FROM tallies ORDER BY tenant, usr, name"),
		presence:   of("SELECT id, n, tenant, usr, after, until FROM presence ORDER BY id"),
		queues:     of("SELECT " + snapshotCounts + ", name, paused FROM queues ORDER BY name"),
		applied:    of("SELECT batch, last_job FROM applied"),
		idSkew:     of("SELECT apart FROM created"),
		counts:     of("SELECT count(*), coalesce(sum(n > ?), 0) FROM jobs"),
	}
}

// readTail reads the output that is not in the logs of the running jobs yet. It is a few MiB.
func (s *Snapshot) readTail() error {
	return s.q.tail.each(func(c column) error {
		n := c.int(0)
		s.tail[n] = append(s.tail[n], tailRow{c.int(1), c.int(2), c.bytes(3), c.bytes(4)})
		return nil
	})
}

// Close closes the database.
func (s *Snapshot) Close() error {
	return errors.Join(s.q.rollback.run(), s.q.rollback.conn.Close())
}

// State identifies the content of the database: it changes with each batch that is applied.
func (s *Snapshot) State() (state [32]byte, err error) {
	_, err = s.q.applied.first(func(c column) error { state = sha256.Sum256(c.bytes(0)); return nil })
	return state, err
}

// Batches returns the ids of the last batches, for a caller that does not know the outcome of its
// own.
func (s *Snapshot) Batches() (ids []store.BatchID, err error) {
	var recent recentBatches
	_, err = s.q.applied.first(func(c column) error { recent.load(c.bytes(0)); return nil })
	for at := 0; at < len(recent.ids); at += idBytes {
		ids = append(ids, store.BatchID(recent.ids[at:at+idBytes]))
	}
	return ids, err
}

// LastJob returns the highest row number that a job has or had.
func (s *Snapshot) LastJob() (n int64, err error) {
	_, err = s.q.applied.first(func(c column) error { n = c.int(1); return nil })
	return n, err
}

// IDSkew returns the largest difference between the time in a job's id and its creation.
func (s *Snapshot) IDSkew() (d time.Duration, err error) {
	_, err = s.q.idSkew.first(func(c column) error { d = time.Duration(c.int(0)) * time.Microsecond; return nil })
	return d, err
}

// CountJobs returns the number of all jobs, and of those after a row number.
func (s *Snapshot) CountJobs(after int64) (all, left int64, err error) {
	_, err = s.q.counts.int(after).first(func(c column) error { all, left = c.int(0), c.int(1); return nil })
	return all, left, err
}

// Jobs calls f for each job after a row number, in the order of the numbers. f may read the job's
// bodies and its output.
func (s *Snapshot) Jobs(after int64, f func(*dump.Job) error) error {
	return wrapDamage(s.q.jobs.int(after).each(func(c column) error {
		j, err := s.job(c)
		if err != nil {
			return err
		}
		return f(j)
	}))
}

func (s *Snapshot) job(c column) (*dump.Job, error) {
	j := &dump.Job{Job: *scanJobRow(c), ResultLength: -1}
	j.Raw = dump.Raw{Progress: c.bytes(12), Failure: c.bytes(13), Policy: c.bytes(15), Extra: c.bytes(16)}
	const at = afterJobColumns
	j.Turn, j.InLane, j.Lane, j.Due, j.QueueBy = c.int(at), !c.stmt.ColumnIsNull(at+1), c.text(at+1), c.time(at+2), c.time(at+3)
	j.IdempotencyKey, j.Deleted = c.text(at+4), c.int(at+5) != 0
	if !c.stmt.ColumnIsNull(at + 6) {
		code := c.text(at + 6)
		j.Raw.Code = &code
	}
	if j.Damaged && j.InLane {
		_, _, j.Resource = ops.ParseLane(j.Lane)
	}
	for of, into := range map[*query]*int64{s.q.inputSize: &j.InputLength, s.q.resultSize: &j.ResultLength} {
		if _, err := of.int(j.N).first(func(c column) error { *into = c.int(0); return nil }); err != nil {
			return nil, err
		}
	}
	if j.State != job.Running {
		return j, nil
	}
	j.Lease = ops.Lease{
		Token: c.token(at + 7), Worker: c.text(at + 8), Until: c.time(at + 9), For: time.Duration(c.int(at+10)) * time.Millisecond,
		Used: c.int(at+11) != 0, Process: job.Process(c.token(at + 12)), AttemptStartedAt: s.now,
	}
	if c.stmt.ColumnIsNull(at + 10) { // the lease is older than migration 0012
		j.Lease.For = j.Policy.Timeouts.Lease
	}
	return j, s.addOutput(j)
}

// addOutput sets what the row of a running job does not have: it is in the log and in the tail.
func (s *Snapshot) addOutput(j *dump.Job) error {
	j.Lease.StartCursor, j.Lease.EarlierOutputBytes = j.Cursor, j.OutputBytes
	start := j.Cursor
	for _, r := range s.tail[j.N] {
		if r.progress != nil && r.seq > s.logEnd(j.N) { // else the row of the job has a later one
			j.Raw.Progress = r.progress
			j.Progress, _ = codec.DecodeProgress(r.progress)
		}
	}
	j.Cursor, j.OutputBytes = 0, 0
	return s.Output(j, func(e dump.Entry) error {
		if e.Seq > start {
			j.Job.AddOutput([]job.Entry{e.Entry}, j.Lease.AttemptStartedAt)
			j.Lease.Used = true
		}
		j.Cursor, j.OutputBytes = e.Seq, e.Total
		return nil
	})
}

// logEnd returns the number of the last entry in the log of a job; 0 for none. An error is found
// by the read of the log.
func (s *Snapshot) logEnd(n int64) (seq int64) {
	_, _ = s.q.outputEnd.int(n).first(func(c column) error { seq = c.int(0); return nil })
	return seq
}

// Input reads the input of a job.
func (s *Snapshot) Input(j *dump.Job) (body []byte, err error) {
	_, err = s.q.input.int(j.N).first(func(c column) (err error) {
		body, err = s.ring.Open(sealed.Input(j.ID), c.bytes(0))
		return err
	})
	return body, err
}

// Result reads the result of a job; nil for none.
func (s *Snapshot) Result(j *dump.Job) (r *dump.Result, err error) {
	_, err = s.q.result.int(j.N).first(func(c column) (err error) {
		r = &dump.Result{ContentType: c.text(0)}
		r.Body, err = s.ring.Open(sealed.Result(j.ID), c.bytes(1))
		return err
	})
	return r, err
}

// Output calls f for each entry of a job's output, in their order. The data is valid during the
// call.
func (s *Snapshot) Output(j *dump.Job, f func(dump.Entry) error) error {
	last := int64(0)
	err := s.q.output.int(j.N).each(func(c column) error {
		last = c.int(0)
		kind := c.int(2)
		data, err := jobLog{s.ring, j.ID, j.N}.open(kind, last, c.bytes(5))
		if err != nil {
			return err
		}
		if kind != kindBlock {
			return f(dump.Entry{Total: c.int(1), Entry: job.Entry{
				Seq: last, Kind: job.Kind(kind), Attempt: int(c.int(3)), Events: int(c.int(4)), Data: data,
			}})
		}
		return eachOfBlock(data, last, c.int(1), f)
	})
	for _, r := range s.tail[j.N] {
		if err == nil && j.State == job.Running && r.seq > last { // the others are in the log
			last = r.seq
			var data []byte
			if data, err = s.ring.Open(sealed.Tail(j.ID, r.seq), r.data); err == nil {
				err = eachOfBlock(data, r.seq, r.total, f)
			}
		}
	}
	if errors.Is(err, errBlock) {
		return fmt.Errorf("the output of the job %s is damaged; start a server on this directory and delete the job: %w", j.ID, store.ErrDamaged)
	}
	return err
}

// eachOfBlock calls f for the entries of a block. seq and total are those of its last entry.
func eachOfBlock(block []byte, seq, total int64, f func(dump.Entry) error) error {
	entries, bytes := int64(0), int64(0)
	err := eachEntry(block, func(e job.Entry) { entries, bytes = entries+1, bytes+int64(len(e.Data)) })
	if err != nil {
		return err
	}
	seq, total = seq-entries, total-bytes
	_ = eachEntry(block, func(e job.Entry) {
		seq, total = seq+1, total+int64(len(e.Data))
		e.Seq = seq
		if err == nil {
			err = f(dump.Entry{Entry: e, Total: total})
		}
	})
	return err
}
