package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// running reads a running job, or nil. A damaged one ends.
func (a *applier) running(id job.ID) (*Job, error) {
	j, err := a.tx.Running(id)
	if j == nil || err != nil || !j.Damaged {
		return j, err
	}
	return nil, a.repair(j)
}

// holds reports whether a lease is the current one of a running job, which may be nil.
func holds(j *Job, l job.Lease) bool {
	return j != nil && j.Lease.Token == l.Token && !l.Token.IsZero()
}

func (a *applier) renew(op *store.Renew) error {
	op.Err, op.CancelRequested = nil, false
	j, err := a.running(op.Lease.Job)
	if err != nil {
		return err
	}
	if !holds(j, op.Lease) {
		op.Err = store.LeaseLost(op.Lease)
		return nil
	}
	op.CancelRequested = !j.CancelRequestedAt.IsZero()
	// A lease that was claimed for longer than usual is renewed for that time.
	lasts := op.LeaseFor
	if lasts == 0 {
		lasts = j.Lease.For
	}
	j.Lease.Until, j.Lease.Used = a.now.Add(lasts), true
	return a.tx.SaveRenewal(j)
}

func (a *applier) append(op *store.Append) error {
	op.Err, op.CancelRequested = nil, false
	j, err := a.running(op.Lease.Job)
	if err != nil {
		return err
	}
	if !holds(j, op.Lease) {
		op.Err = store.LeaseLost(op.Lease)
		return nil
	}
	op.CancelRequested = !j.CancelRequestedAt.IsZero()
	repeated, refusal := job.CheckEntries(op.Entries, op.Progress, j.Lease.StartCursor, j.Cursor)
	// A repetition was stored when its answer was lost. Nothing is left to do.
	if op.Err = refusal; repeated || refusal != nil {
		return nil
	}
	j.Lease.Used = true
	if op.Progress != nil {
		j.Progress = *op.Progress
	}
	return a.tx.Append(j, op.Entries, op.Progress != nil)
}
