package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// find reads an owner's job, or nil. A damaged one is repaired first.
func (a *applier) find(owner job.Owner, id job.ID) (*Job, error) {
	j, err := a.tx.Find(owner, id)
	if j == nil || err != nil || !j.Damaged {
		return j, err
	}
	gone := j.State == job.Running && j.Deleted
	if err := a.repair(j); err != nil || gone {
		return nil, err
	}
	return j, nil
}

// findOwned finds a job of an owner. The first error is the refusal for the op, the second
// ends the batch.
func (a *applier) findOwned(owner job.Owner, id job.ID) (*Job, error, error) {
	j, err := a.find(owner, id)
	if err != nil {
		return nil, nil, err
	}
	if j == nil || j.Deleted {
		return nil, store.NoJob(id), nil
	}
	return j, nil, nil
}

func (a *applier) cancel(op *store.Cancel) (err error) {
	op.Err, op.Ended = nil, false
	j, refusal, err := a.findOwned(op.Owner, op.ID)
	if op.Err = refusal; refusal != nil || err != nil {
		return err
	}
	if op.IfAbandoned {
		if op.Err, err = a.checkAbandoned(op); op.Err != nil || err != nil {
			return err
		}
	}
	switch {
	case j.State.Waiting():
		op.Ended = true
		err = a.cancelWaiting(j)
	// A second cancel of a running job changes nothing: the first request's time counts.
	case j.State == job.Running && j.CancelRequestedAt.IsZero():
		err = a.requestCancel(j)
	}
	op.Job = j.Job
	return err
}

// requestCancel asks for the end of a running job.
func (a *applier) requestCancel(j *Job) error {
	j.RequestCancel(a.now)
	if err := a.tx.SaveCancelRequest(j); err != nil {
		return err
	}
	return a.stopAbandonTimeout(j)
}

// checkAbandoned refuses a cancel if a presence arrived after the job was listed as
// abandonable.
func (a *applier) checkAbandoned(op *store.Cancel) (refusal, err error) {
	abandoned, err := a.tx.Abandoned(op.ID)
	// The sweep listed the job earlier. A client may have come back since.
	if err == nil && !abandoned {
		refusal = store.ClientPresent()
	}
	return refusal, err
}

func (a *applier) retry(op *store.Retry) error {
	op.Err = nil
	j, refusal, err := a.findOwned(op.Owner, op.ID)
	if op.Err = refusal; refusal != nil || err != nil {
		return err
	}
	if op.Err = store.NotRetryable(&j.Job); op.Err != nil {
		op.Job = j.Job
		return nil
	}
	from := j.State
	j.Job.Retry(a.readyState(&j.Job), a.now)
	j.Turn = a.move(&j.Job, from, false)
	op.Job = j.Job
	// The abandon timeout counts from the retry.
	if err := a.startAbandonTimeout(j); err != nil {
		return err
	}
	if err := a.applyAtEnd(j, nil); err != nil {
		return err
	}
	return a.tx.SaveRetry(j, from)
}
