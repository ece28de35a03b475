package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func (a *applier) delete(op *store.Delete) error {
	op.Err, op.Running = nil, false
	j, refusal, err := a.findOwned(op.Owner, op.ID)
	if err != nil {
		return err
	}
	if refusal != nil {
		op.Err = refusal
		return a.deleteAgain(op)
	}
	// The delete is recorded now, so that a second one succeeds while the attempt still runs.
	if err := a.rememberDelete(op); err != nil {
		return err
	}
	if j.State == job.Running {
		// No read finds the job any more. It is removed when its attempt ends.
		op.Running, j.Deleted = true, true
		return a.requestCancel(j)
	}
	if j.State.Waiting() {
		if err := a.cancelWaiting(j); err != nil {
			return err
		}
	}
	return a.remove(j)
}

// deleteAgain answers a second delete of a job as the first, so that a lost answer can be repeated.
func (a *applier) deleteAgain(op *store.Delete) error {
	by, known, err := a.tx.DeletedBy(op.ID)
	if err != nil || !known || by != op.Owner && op.Owner != job.WholeTenant(by.Tenant) {
		return err
	}
	j, err := a.running(op.ID)
	op.Err, op.Running = nil, j != nil
	return err
}

// rememberDelete records a delete, unless its owner may keep no more.
func (a *applier) rememberDelete(op *store.Delete) error {
	fits, err := a.fitsOwner(op.Owner, DeleteBytes)
	if err != nil || !fits {
		return err
	}
	a.keep(op.Owner, DeleteBytes)
	return a.tx.SaveDelete(store.OwnedID{Owner: op.Owner, ID: op.ID}, a.now.Add(store.KeepDeletes))
}

// remove deletes an ended job with all that belongs to it. Its idempotency key stays until its time
// has passed.
func (a *applier) remove(j *Job) error {
	if err := a.tx.Remove(j); err != nil {
		return err
	}
	if j.Tally != "" {
		c := a.tallyChange(tallyOf(&j.Job))
		c.Rows--
		c.Removed = true
	}
	if j.FileCount > 0 {
		a.b.Removed = append(a.b.Removed, j.ID)
	}
	if j.IdempotencyKey == "" {
		return nil
	}
	return a.releaseKey(OwnedKey{j.Owner, j.IdempotencyKey})
}

// releaseKey deletes the idempotency key of a removed job, or leaves it to a prune if its time
// has not passed.
func (a *applier) releaseKey(k OwnedKey) error {
	use, err := a.tx.KeyUse(k)
	if err != nil || use == nil {
		return err
	}
	// The key answers repeated submits until its time has passed, also without its job.
	if !use.Until.After(a.now) {
		return a.tx.DeleteKey(k)
	}
	a.keep(k.Owner, LeftoverBytes)
	return a.tx.InsertLeftover(k, use.Until)
}
