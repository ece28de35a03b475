package sqlite

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func (t *tx) submit(op *store.Submit) error {
	op.Err, op.Existing, op.Conflict = nil, nil, nil
	if known, err := t.knownKey(op); known || err != nil {
		return err
	}
	var err error
	if op.Conflict, op.Err, err = t.checkRows(op.Rows); op.Err != nil || err != nil {
		return err
	}
	if err := t.insertJob(op); err != nil {
		return err
	}
	return t.putRows(op.Rows)
}

// knownKey answers a submit whose idempotency key was used before.
func (t *tx) knownKey(op *store.Submit) (bool, error) {
	k := op.Idempotency
	if k == nil {
		return false, nil
	}
	o := op.Job.Owner
	var first job.ID
	var hash [32]byte
	var until time.Time
	known, err := t.q.idempotent.text(o.Tenant).text(o.User).text(k.Key).first(func(c column) error {
		first, until = c.id(0), c.time(2)
		c.stmt.ColumnBytes(1, hash[:])
		return nil
	})
	if err != nil || !known {
		return false, err
	}
	r, err := t.find(o, first)
	if err != nil {
		return false, err
	}
	switch {
	case r == nil && !until.After(t.now):
		// Neither the job nor the promise is left: the key is free again.
		return false, t.q.deleteIdempotent.text(o.Tenant).text(o.User).text(k.Key).run()
	case hash != k.Hash:
		op.Err = job.Errorf(job.IdempotencyMismatch, "this idempotency key was used before, for another request")
	case r == nil || r.deleted:
		op.Err = job.Errorf(job.NotFound, "the job that this idempotency key made has been deleted")
	default:
		op.Existing = &r.job.Job
	}
	return true, nil
}

// insertJob writes the rows of a new job.
func (t *tx) insertJob(op *store.Submit) error {
	j := &op.Job
	queueBy, turn := t.place(op)
	x, err := encodeExtra(j)
	if err != nil {
		return err
	}
	idem := ""
	if op.Idempotency != nil {
		idem = op.Idempotency.Key
	}
	var until time.Time
	t.rows++
	n := t.rows
	if j.State == job.Running {
		until = t.now.Add(op.LeaseFor)
		t.running[j.ID] = &held{job: row{*j, n}, token: op.Token, worker: op.Worker, until: until, idem: idem}
	}
	t.moved(j.Queue, 0, j.State)
	err = t.q.insertJob.int(n).id(&j.ID).text(j.Owner.Tenant).text(j.Owner.User).text(j.Queue).text(j.Key).
		int(int64(j.Priority)).int(int64(j.State)).int(turn).int(int64(j.Attempt)).int(int64(j.MaxAttempts)).
		time(j.CreatedAt).time(j.RunAt).time(queueBy).time(j.StartedAt).token(&op.Token).orNull(op.Worker).time(until).
		blob(encodePolicy(j.Policy)).bytes(x).orNull(idem).
		int(j.InputBytes).int(int64(len(j.Files))).micros(j.Policy.Timeouts.Abandon).run()
	if err != nil {
		return err
	}
	if k := op.Idempotency; k != nil {
		err := t.q.insertIdempotent.text(j.Owner.Tenant).text(j.Owner.User).text(k.Key).id(&j.ID).blob(k.Hash[:]).time(t.now.Add(k.Keep)).run()
		if err != nil {
			return err
		}
	}
	return t.q.insertInput.int(n).blob(op.Input).run()
}

// place sets a new job's state and times, and finds its turn and when it expires.
func (t *tx) place(op *store.Submit) (queueBy time.Time, turn int64) {
	j := &op.Job
	j.CreatedAt, j.RunAt = t.now, t.now
	j.Attempt, j.StartedAt = 0, time.Time{}
	switch {
	case !op.Token.IsZero():
		j.State, j.Attempt, j.StartedAt = job.Running, 1, t.now
		return time.Time{}, t.turns.of(j.Queue).now
	case op.Delay > 0:
		j.State, j.RunAt = job.Scheduled, stamp(t.now.Add(op.Delay))
	default:
		j.State = job.Queued
		turn = t.turns.enter(j)
	}
	if d := j.Policy.Timeouts.Queue; d > 0 {
		queueBy = j.RunAt.Add(d)
	}
	return queueBy, turn
}

// found is a job's row as an op needs it.
type found struct {
	job     row
	idem    string
	deleted bool
}

// find reads the row of an owner's job; nil when there is none. A job that runs is
// found in memory, with what its row does not keep.
func (t *tx) find(owner job.Owner, id job.ID) (*found, error) {
	if h := t.running[id]; h != nil && h.job.Owner == owner {
		return &found{job: h.job, idem: h.idem, deleted: h.deleted}, nil
	}
	var f *found
	_, err := t.q.job.text(owner.Tenant).text(owner.User).id(&id).first(func(c column) error {
		j, err := scanRow(c)
		const at = afterJobColumns
		f = &found{job: j, idem: c.text(at), deleted: c.int(at+1) != 0}
		return err
	})
	return f, err
}
