package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func (a *applier) finish(op *store.Finish) error {
	op.Err, op.State, op.Job = nil, 0, nil
	j, err := a.running(op.Lease.Job)
	if err != nil {
		return err
	}
	if j != nil {
		a.m.namedQueue(j.Queue) // the counts are answered also for a refused op
	}
	entries, refusal := a.checkFinish(op, j)
	if op.Err = refusal; refusal != nil {
		return nil
	}
	if err := a.tx.AppendLast(j, entries); err != nil {
		return err
	}
	suspect := j.Suspect() // the end may clear the losses
	j.Job.Finish(&job.Finish{
		To: op.To, Failure: op.Failure, Usage: op.Usage, Delay: op.Delay, Refund: op.Refund, Unused: op.Unused, Lost: op.Lost,
	}, a.now)
	j.Turn = a.move(&j.Job, job.Running, suspect)
	after := j.Job // a later op of the batch may change the job again
	op.State, op.Job = after.State, &after
	if op.State.Ended() {
		return a.endRunning(j, op)
	}
	return a.tx.SaveRequeue(j)
}

// checkFinish returns the refusal of a finish, or the entries to append. It sets the progress.
func (a *applier) checkFinish(op *store.Finish, j *Job) (entries []job.Entry, refusal error) {
	switch {
	case !holds(j, op.Lease):
		return nil, store.LeaseLost(op.Lease)
	case !job.CanMove(job.Running, op.To):
		return nil, store.BadFinish(op.To)
	case !j.Matches(op.OnlyIf, a.now):
		return nil, store.SweepTooLate(op.Lease.Job)
	}
	repeated, refusal := job.CheckEntries(op.Entries, op.Progress, j.Lease.StartCursor, j.Cursor)
	if repeated || refusal != nil {
		return nil, refusal // stored by an earlier append: only the end is new
	}
	if op.Progress != nil {
		j.Progress = *op.Progress
	}
	return op.Entries, nil
}

// endRunning writes the end of a job that ran.
func (a *applier) endRunning(j *Job, op *store.Finish) error {
	result := op.Result
	switch {
	case j.State != job.Succeeded:
		result = nil
	// AtEnd gets a result of every succeeded job. An empty result is not stored.
	case result == nil:
		result = &job.Result{}
	}
	// AtEnd may read the output and the result, so it runs before anything is removed.
	if !op.SkipAtEnd {
		if err := a.applyAtEnd(j, result); err != nil {
			return err
		}
	}
	if j.Deleted {
		return a.remove(j)
	}
	if err := a.stopAbandonTimeout(j); err != nil {
		return err
	}
	return a.tx.SaveEnd(j, job.Running, result)
}

// endWaiting writes the end of a waiting job. With skipAtEnd it does not call [store.AtEnd].
func (a *applier) endWaiting(j *Job, from job.State, skipAtEnd bool) error {
	a.move(&j.Job, from, false)
	if !skipAtEnd {
		if err := a.applyAtEnd(j, nil); err != nil {
			return err
		}
	}
	if err := a.stopAbandonTimeout(j); err != nil {
		return err
	}
	return a.tx.SaveEnd(j, from, nil)
}

// cancelWaiting cancels a job that does not run.
func (a *applier) cancelWaiting(j *Job) error {
	from := j.State
	j.End(job.Cancelled, a.now)
	return a.endWaiting(j, from, false)
}

// startAbandonTimeout starts a job's abandon timeout, if it has one. It is over when the job ends,
// is deleted or is asked to stop.
func (a *applier) startAbandonTimeout(j *Job) error {
	if j.Policy.Timeouts.Abandon == 0 {
		return nil
	}
	return a.tx.StartAbandon(j)
}

// stopAbandonTimeout ends a job's abandon timeout.
func (a *applier) stopAbandonTimeout(j *Job) error {
	if j.Policy.Timeouts.Abandon == 0 {
		return nil
	}
	return a.tx.StopAbandon(j.ID)
}
