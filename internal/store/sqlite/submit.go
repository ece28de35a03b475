package sqlite

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

// submits applies submits one by one, and all submits of a group or none.
func (t *tx) submits(ops []*store.Submit) error {
	for len(ops) > 0 {
		n, apply := 1, t.submit
		if ops[0].Group != nil {
			n, apply = groupSize(ops), t.submitChecked
			if err := t.checkGroup(ops[:n]); err != nil {
				return err
			}
		}
		if err := applyEach(t, ops[:n], apply); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}

func (t *tx) submit(op *store.Submit) error {
	op.Err, op.Existing, op.Conflict = nil, nil, nil
	q := t.namedQueue(op.Job.Queue)
	if known, err := t.answerRepeatedSubmit(op); known || err != nil {
		return err
	}
	a := arrival(op)
	if op.Err = q.Admit(&a); op.Err != nil {
		return nil
	}
	var err error
	if op.Conflict, op.Err, err = t.checkRows(op.Rows); op.Err != nil || err != nil {
		return err
	}
	if op.Err, err = t.checkKept(op.Job.Owner, keptBytes(op)); op.Err != nil || err != nil {
		return err
	}
	return t.create(op)
}

// create stores a new job after all checks.
func (t *tx) create(op *store.Submit) error {
	if err := t.insertJob(op); err != nil {
		return err
	}
	return t.putRows(op.Rows)
}

// answerRepeatedSubmit answers a submit that was applied before: its token holds its job, or
// its idempotency key was used. It reports whether the op is answered.
func (t *tx) answerRepeatedSubmit(op *store.Submit) (bool, error) {
	if !op.Token.IsZero() {
		if id, known := t.tokens[op.Token]; known {
			if id != op.Job.ID {
				op.Err = store.TokenInUse()
			} else {
				op.Job = t.running[id].job.Job
			}
			return true, nil
		}
	}
	k := op.Idempotency
	if k == nil {
		return false, nil
	}
	o := op.Job.Owner
	var first job.ID
	var use store.KeyUse
	known, err := t.q.idempotent.text(o.Tenant).text(o.User).text(k.Key).first(func(c column) error {
		first, use.Keep = c.id(0), c.time(2)
		c.stmt.ColumnBytes(1, use.Hash[:])
		return nil
	})
	if err != nil || !known {
		return false, err
	}
	r, err := t.find(o, first)
	if err != nil {
		return false, err
	}
	if r != nil {
		use.Job, use.Hidden = &r.job.Job, r.deleted
	}
	if op.AnswerKey(&use, t.now) {
		return true, nil
	}
	return false, t.q.deleteIdempotent.text(o.Tenant).text(o.User).text(k.Key).run()
}

// insertJob inserts the rows of a new job.
func (t *tx) insertJob(op *store.Submit) error {
	j := &op.Job
	turn := t.placeNew(op)
	if err := t.noteIDSkew(j); err != nil {
		return err
	}
	x, err := codec.EncodeExtra(j)
	if err != nil {
		return err
	}
	idem := ""
	if op.Idempotency != nil {
		idem = op.Idempotency.Key
	}
	// SQLite would reuse the number of a removed last row.
	t.lastJobRow++
	n := t.lastJobRow
	if j.State == job.Running {
		err = t.insertRunning(op, n, x, idem)
	} else {
		err = t.insertWaiting(j, n, turn, x, idem)
	}
	if j.Tally != "" {
		t.tallyChange(tallyKeyOf(j)).rows++
	}
	if err == nil && len(j.Files) > 0 {
		err = t.q.insertWithFiles.int(n).id(&j.ID).run()
	}
	if err == nil {
		err = t.startAbandonTimeout(j, n)
	}
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

// insertRunning inserts the row of a job that is leased from the start.
func (t *tx) insertRunning(op *store.Submit, n int64, extra []byte, idem string) error {
	j, until := &op.Job, t.now.Add(op.LeaseFor)
	t.addRunning(&runningJob{
		job: row{*j, n, len(j.Files)}, token: op.Token, worker: op.Worker, process: op.Process,
		leaseFor: op.LeaseFor, leaseUntil: until, attemptStartedAt: t.now, leaseUsed: op.InUse, idempotencyKey: idem,
	})
	return t.q.insertRunning.int(n).id(&j.ID).text(j.Owner.Tenant).text(j.Owner.User).text(j.Queue).text(j.Key).
		int(int64(j.Priority)).int(int64(j.MaxAttempts)).time(t.now).token(&op.Token).orNull(op.Worker).time(until).
		blob(codec.EncodePolicy(j.Policy)).bytes(extra).orNull(idem).int(j.InputBytes).int(int64(len(j.Files))).
		int(int64(op.LeaseFor / time.Millisecond)).flag(op.InUse).process(&op.Process).run()
}

// insertWaiting inserts the row of a job that is scheduled, queued or parked.
func (t *tx) insertWaiting(j *job.Job, n, turn int64, extra []byte, idem string) error {
	q := t.q.insertWaiting.int(n).id(&j.ID).text(j.Owner.Tenant).text(j.Owner.User).text(j.Queue).text(j.Key).
		int(int64(j.Priority)).int(int64(j.State)).int(turn).int(int64(j.MaxAttempts)).time(t.now).time(j.RunAt).time(j.QueueDeadline()).
		blob(codec.EncodePolicy(j.Policy)).bytes(extra).orNull(idem).int(j.InputBytes).int(int64(len(j.Files)))
	// Only one of lane and due is set. It is what puts the row into its partial index.
	if j.State == job.Scheduled {
		return q.null().time(j.RunAt).run()
	}
	return q.text(laneOf(j)).null().run()
}

// placeNew sets a new job's state and times, and returns its turn.
func (t *tx) placeNew(op *store.Submit) (turn int64) {
	a := arrival(op)
	op.Job.Create(t.queue(op.Job.Queue).FirstState(&a), op.Delay, t.now)
	return t.updateCounts(&op.Job, 0)
}

// foundJob is a job's row with further columns that only ops need.
type foundJob struct {
	job            row
	idempotencyKey string
	deleted        bool
}

// find returns an owner's job, or nil. A running job comes from the memory, which has more
// than its row. A damaged row is repaired first.
func (t *tx) find(owner job.Owner, id job.ID) (*foundJob, error) {
	if h := t.running[id]; h != nil && h.job.Owner == owner {
		return &foundJob{job: h.job, idempotencyKey: h.idempotencyKey, deleted: h.deleted}, nil
	}
	var f *foundJob
	var damage error
	_, err := t.q.job.text(owner.Tenant).text(owner.User).id(&id).first(func(c column) error {
		const at = afterJobColumns
		f = &foundJob{idempotencyKey: c.text(at), deleted: c.int(at+1) != 0}
		f.job, damage = scanRow(c)
		return nil
	})
	if err == nil && damage != nil {
		err = t.repair(&f.job)
	}
	return f, err
}
