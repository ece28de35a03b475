package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// submits applies submits one by one, and all submits of a group or none.
func (a *applier) submits(ops []*store.Submit) error {
	for len(ops) > 0 {
		n, apply := 1, a.submit
		if ops[0].Group != nil {
			n, apply = groupSize(ops), a.submitChecked
			if err := a.checkGroup(ops[:n]); err != nil {
				return err
			}
		}
		if err := applyEach(a, ops[:n], apply); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}

func (a *applier) submit(op *store.Submit) error {
	op.Err, op.Existing, op.Conflict = nil, nil, nil
	q := a.m.namedQueue(op.Job.Queue)
	if known, err := a.answerRepeatedSubmit(op); known || err != nil {
		return err
	}
	arriving := arrival(op)
	if op.Err = q.Admit(&arriving); op.Err != nil {
		return nil
	}
	var err error
	if op.Conflict, op.Err, err = a.checkRows(op.Rows); op.Err != nil || err != nil {
		return err
	}
	if op.Err, err = a.checkKept(op.Job.Owner, keptBytes(op)); op.Err != nil || err != nil {
		return err
	}
	return a.create(op)
}

// arrival converts a submit for the rules of its queue.
func arrival(op *store.Submit) fairqueue.Arrival {
	return fairqueue.Arrival{
		Queue: op.Job.Queue, Key: fairqueue.KeyOf(&op.Job), Resource: op.Job.Resource,
		Delayed: op.Delay > 0, Leased: !op.Token.IsZero(),
	}
}

// answerRepeatedSubmit answers a submit that was applied before: its token holds its job, or
// its idempotency key was used. It reports whether the op is answered.
func (a *applier) answerRepeatedSubmit(op *store.Submit) (bool, error) {
	if !op.Token.IsZero() {
		held, err := a.tx.Holder(op.Token)
		if err != nil {
			return false, err
		}
		if held != nil {
			if held.ID != op.Job.ID {
				op.Err = store.TokenInUse()
			} else {
				op.Job = held.Job
			}
			return true, nil
		}
	}
	if op.Idempotency == nil {
		return false, nil
	}
	return a.answerUsedKey(op, OwnedKey{op.Job.Owner, op.Idempotency.Key})
}

// answerUsedKey answers a submit whose idempotency key was used before. It deletes a key whose time
// has passed.
func (a *applier) answerUsedKey(op *store.Submit, k OwnedKey) (bool, error) {
	first, err := a.tx.KeyUse(k)
	if err != nil || first == nil {
		return false, err
	}
	use := store.KeyUse{Hash: first.Hash, Keep: first.Until}
	j, err := a.find(k.Owner, first.Job)
	if err != nil {
		return false, err
	}
	if j != nil {
		existing := j.Job // a later op may change the job
		use.Job, use.Hidden = &existing, j.Deleted
	}
	if op.AnswerKey(&use, a.now) {
		return true, nil
	}
	return false, a.tx.DeleteKey(k)
}

// create stores a new job after all checks.
func (a *applier) create(op *store.Submit) error {
	arriving := arrival(op)
	op.Job.Create(a.m.queue(op.Job.Queue).FirstState(&arriving), op.Delay, a.now)
	j := &Job{Job: op.Job, FileCount: len(op.Job.Files)}
	j.Turn = a.move(&j.Job, 0, false)
	if j.State == job.Running {
		j.Lease = Lease{
			Token: op.Token, Worker: op.Worker, Process: op.Process, For: op.LeaseFor, Until: a.now.Add(op.LeaseFor),
			Used: op.InUse, AttemptStartedAt: a.now,
		}
	}
	if op.Idempotency != nil {
		j.IdempotencyKey = op.Idempotency.Key
	}
	if err := a.tx.Insert(j, op.Input); err != nil {
		return err
	}
	if j.Tally != "" {
		a.tallyChange(tallyOf(&j.Job)).Rows++
	}
	if err := a.startAbandonTimeout(j); err != nil {
		return err
	}
	if k := op.Idempotency; k != nil {
		err := a.tx.InsertKey(OwnedKey{j.Owner, k.Key}, KeyUse{Job: j.ID, Hash: k.Hash, Until: a.now.Add(k.Keep)})
		if err != nil {
			return err
		}
	}
	return a.putRows(op.Rows)
}
