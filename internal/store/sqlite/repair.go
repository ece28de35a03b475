package sqlite

import (
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

// errDamagedRow reports that a row cannot be decoded completely. The readable part is used.
var errDamagedRow = errors.New("sqlite: a job's row is damaged")

// keepDamaged is how long a job that failed because of its damaged row is kept.
const keepDamaged = 7 * 24 * time.Hour

// readWaiting reads rows of waiting jobs and repairs damaged ones, so that damage does not stop
// the op. It also returns the number of rows read.
func (t *tx) readWaiting(q *query) (rows []row, n int, err error) {
	var damaged []row
	err = q.each(func(c column) error {
		n++
		j, damage := scanRow(c)
		if damage != nil {
			damaged = append(damaged, j)
		} else {
			rows = append(rows, j)
		}
		return nil
	})
	for i := range damaged {
		if err == nil {
			err = t.repair(&damaged[i])
		}
	}
	return rows, n, err
}

// repair rewrites a damaged row with its readable fields only. An unfinished job fails.
func (t *tx) repair(j *row) error {
	t.batch.Damaged = append(t.batch.Damaged, j.ID)
	if !j.State.Ended() {
		from := j.State
		if from == job.Queued {
			// The resource may be the damaged part. The job is counted with that of its lane.
			_, err := t.q.lane.int(j.n).first(func(c column) error {
				_, _, j.Resource = parseLane(c.text(0))
				return nil
			})
			if err != nil {
				return err
			}
		}
		j.Policy.Keep.Failed = keepDamaged // the policy may be the damaged part
		j.End(job.Failed, t.now)
		t.updateCountsUnchecked(&j.Job, from)
		j.Failure = &job.Failure{
			Code: store.DamagedJob, Attempt: j.Attempt,
			Message: "the job's record was damaged on the server's disk: submit it anew",
		}
		if err := t.applyAtEnd(j, nil); err != nil {
			return err
		}
	}
	// Whether the job had an abandon timeout may be unknown: its policy may be damaged.
	if err := t.q.deletePresence.id(&j.ID).run(); err != nil {
		return err
	}
	x, err := codec.EncodeExtra(&j.Job)
	if err != nil {
		return err
	}
	return t.q.repair.int(int64(j.State)).int(j.Revision).time(j.FinishedAt).time(j.ExpiresAt).int(j.Cursor).int(j.OutputBytes).
		bytes(codec.EncodeProgress(j.Progress)).failure(j.Failure).blob(codec.EncodePolicy(j.Policy)).bytes(x).int(j.n).run()
}

// endDamaged ends running jobs whose rows were damaged at the opening.
func (t *tx) endDamaged() error {
	for _, id := range t.damagedJobs {
		h := t.running[id]
		if h == nil { // listed twice: its row and its tail are damaged
			continue
		}
		if err := t.flushPending(h); err != nil {
			return err
		}
		t.removeRunning(id)
		if err := t.repair(&h.job); err != nil {
			return err
		}
		if h.deleted {
			if err := t.remove(removalOf(&h.job, h.idempotencyKey)); err != nil {
				return err
			}
		}
	}
	t.damagedJobs = nil
	_, err := t.unparkFreedKeys()
	return err
}
