package sqlite

import (
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// errDamaged is why a row cannot be read whole. What can be read of it is.
var errDamagedRow = errors.New("sqlite: a job's row is damaged")

// keepDamaged is how long a job is kept that ended because its row was damaged.
const keepDamaged = 7 * 24 * time.Hour

// readable reads rows of waiting jobs. Those that are damaged end: whoever acts on
// jobs goes on with the others. It says how many there were in all.
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

// mend makes a damaged row one that can be read again: what cannot be is left out,
// and a job that had not ended ends as failed.
func (t *tx) repair(j *row) error {
	t.batch.Damaged = append(t.batch.Damaged, j.ID)
	if !j.State.Ended() {
		from := j.State
		j.Policy.Keep.Failed = keepDamaged // what could be read of it may be nothing
		j.End(job.Failed, t.now)
		t.countUnchecked(&j.Job, from)
		j.Failure = &job.Failure{
			Code: store.DamagedJob, Attempt: j.Attempt,
			Message: "the job's record was damaged on the server's disk: submit it anew",
		}
		if err := t.applyAtEnd(j, nil); err != nil {
			return err
		}
	}
	if err := t.q.deletePresence.id(&j.ID).run(); err != nil {
		return err
	}
	x, err := encodeExtra(&j.Job)
	if err != nil {
		return err
	}
	return t.q.repair.int(int64(j.State)).int(j.Revision).time(j.FinishedAt).time(j.ExpiresAt).int(j.Cursor).int(j.OutputBytes).
		bytes(encodeProgress(j.Progress)).bytes(encodeFailure(j.Failure)).blob(encodePolicy(j.Policy)).bytes(x).int(j.n).run()
}

// endDamaged ends the running jobs whose rows were found damaged when the store was
// opened.
func (t *tx) endDamaged() error {
	for _, id := range t.damagedJobs {
		h := t.running[id]
		if h == nil { // its row and its tail are damaged: it was listed twice
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
			if err := t.remove(removalOf(&h.job, h.idem)); err != nil {
				return err
			}
		}
	}
	t.damagedJobs = nil
	_, err := t.unparkFreedKeys()
	return err
}
