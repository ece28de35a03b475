package sqlite

import (
	"bytes"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// errDamagedRow reports that a row cannot be decoded completely. The readable part is used.
var errDamagedRow = errors.New("sqlite: a job's row is damaged")

// scanJobRow decodes a job for an op.
func scanJobRow(c column) *ops.Job {
	j, damage := scanJob(c)
	return &ops.Job{Job: j, N: c.int(0), FileCount: int(c.int(24)), Damaged: damage != nil}
}

// completeDamaged sets the resource of a damaged ready job from its lane: the job is counted with
// that, and what the row says may be the damaged part.
func (t *tx) completeDamaged(j *ops.Job) error {
	if !j.Damaged || j.State != job.Queued && j.State != job.Parked {
		return nil
	}
	_, err := t.q.lane.int(j.N).first(func(c column) error {
		_, _, j.Resource = ops.ParseLane(c.text(0))
		return nil
	})
	return err
}

// Find reads a job; see [ops.JobTx]. A running job comes from the memory, which has more than its
// row.
func (t *tx) Find(owner job.Owner, id job.ID) (j *ops.Job, err error) {
	if h := t.running[id]; h != nil && h.Owner == owner {
		return h.Job, nil
	}
	_, err = t.q.job.text(owner.Tenant).text(owner.User).id(&id).first(func(c column) error {
		j = scanJobRow(c)
		const at = afterJobColumns
		j.IdempotencyKey, j.Deleted = c.text(at), c.int(at+1) != 0
		return nil
	})
	if j != nil && err == nil {
		err = t.completeDamaged(j)
	}
	return j, err
}

// Insert inserts the rows of a new job; see [ops.JobTx].
func (t *tx) Insert(j *ops.Job, input []byte) error {
	if err := t.noteIDSkew(&j.Job); err != nil {
		return err
	}
	extra, err := codec.EncodeExtra(&j.Job)
	if err != nil {
		return err
	}
	// SQLite would reuse the number of a removed last row.
	t.lastJobRow++
	j.N = t.lastJobRow
	if j.State == job.Running {
		err = t.insertRunning(j, extra)
	} else {
		err = t.insertWaiting(j, extra)
	}
	if err == nil && j.FileCount > 0 {
		err = t.q.insertWithFiles.int(j.N).id(&j.ID).run()
	}
	if err != nil {
		return err
	}
	return t.q.insertInput.int(j.N).blob(t.ring.Seal(sealed.Input(j.ID), input)).run()
}

// insertRunning inserts the row of a job that is leased from the start.
func (t *tx) insertRunning(j *ops.Job, extra []byte) error {
	t.addRunning(&runningJob{Job: j})
	l := &j.Lease
	return t.q.insertRunning.int(j.N).id(&j.ID).text(j.Owner.Tenant).text(j.Owner.User).text(j.Queue).text(j.Key).
		int(int64(j.Priority)).int(int64(j.MaxAttempts)).time(t.now).token(&l.Token).orNull(l.Worker).time(l.Until).
		blob(codec.EncodePolicy(j.Policy)).bytes(extra).orNull(j.IdempotencyKey).int(j.InputBytes).int(int64(j.FileCount)).
		int(int64(l.For / time.Millisecond)).flag(l.Used).process(&l.Process).run()
}

// insertWaiting inserts the row of a job that is scheduled, queued or parked.
func (t *tx) insertWaiting(j *ops.Job, extra []byte) error {
	q := t.q.insertWaiting.int(j.N).id(&j.ID).text(j.Owner.Tenant).text(j.Owner.User).text(j.Queue).text(j.Key).
		int(int64(j.Priority)).int(int64(j.State)).int(j.Turn).int(int64(j.MaxAttempts)).time(t.now).time(j.RunAt).time(j.QueueDeadline()).
		blob(codec.EncodePolicy(j.Policy)).bytes(extra).orNull(j.IdempotencyKey).int(j.InputBytes).int(int64(j.FileCount))
	// Only one of lane and due is set. It is what puts the row into its partial index.
	if j.State == job.Scheduled {
		return q.null().time(j.RunAt).run()
	}
	return q.text(ops.LaneOf(&j.Job)).null().run()
}

// Input reads a job's input; see [ops.JobTx].
func (t *tx) Input(j *ops.Job) (input []byte, err error) {
	_, err = t.q.input.int(j.N).first(func(c column) (err error) {
		input, err = t.ring.Open(sealed.Input(j.ID), c.bytes(0))
		return err
	})
	return input, err
}

// SaveEnd writes the end of a job; see [ops.JobTx].
func (t *tx) SaveEnd(j *ops.Job, from job.State, result *job.Result) error {
	if from != job.Running {
		return t.q.endWaiting.int(int64(j.State)).int(j.Revision).time(j.FinishedAt).time(j.ExpiresAt).failure(j.Failure).int(j.N).run()
	}
	t.removeRunning(j)
	if result != nil && (len(result.Body) > 0 || result.ContentType != "") {
		body := t.ring.Seal(sealed.Result(j.ID), result.Body)
		if err := t.q.insertResult.int(j.N).text(result.ContentType).blob(body).run(); err != nil {
			return err
		}
	}
	return t.q.endRunning.int(int64(j.State)).int(j.Revision).time(j.FinishedAt).time(j.ExpiresAt).int(j.Cursor).int(j.OutputBytes).
		bytes(codec.EncodeProgress(j.Progress)).failure(j.Failure).bytes(j.Usage).int(int64(j.Losses)).int(int64(j.Cleared)).int(j.N).run()
}

// SaveRetry writes a job that is retried; see [ops.JobTx].
func (t *tx) SaveRetry(j *ops.Job, _ job.State) error {
	return t.q.retry.int(int64(j.State)).int(j.Revision).text(ops.LaneOf(&j.Job)).int(j.Turn).time(j.RunAt).time(j.QueueDeadline()).int(j.N).run()
}

// Repair rewrites a damaged row; see [ops.JobTx].
func (t *tx) Repair(j *ops.Job, from job.State) error {
	if from == job.Running {
		t.removeRunning(j)
	}
	// Whether the job had an abandon timeout may be unknown: its policy may be damaged.
	if err := t.q.deletePresence.id(&j.ID).run(); err != nil {
		return err
	}
	extra, err := codec.EncodeExtra(&j.Job)
	if err != nil {
		return err
	}
	return t.q.repair.int(int64(j.State)).int(j.Revision).time(j.FinishedAt).time(j.ExpiresAt).int(j.Cursor).int(j.OutputBytes).
		bytes(codec.EncodeProgress(j.Progress)).failure(j.Failure).blob(codec.EncodePolicy(j.Policy)).bytes(extra).int(j.N).run()
}

// Remove deletes a job and its rows; see [ops.JobTx].
func (t *tx) Remove(j *ops.Job) error {
	if t.running[j.ID] != nil {
		t.removeRunning(j)
	}
	for _, q := range [...]*query{t.q.deleteOutput, t.q.deleteInput, t.q.deleteResult, t.q.deleteJob} {
		if err := q.int(j.N).run(); err != nil {
			return err
		}
	}
	if j.FileCount == 0 {
		return nil
	}
	return t.q.deleteWithFiles.int(j.N).run()
}

func compareIDs(a, b job.ID) int { return bytes.Compare(a[:], b[:]) }
