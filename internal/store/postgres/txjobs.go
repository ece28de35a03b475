package postgres

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// errUsedID refuses a batch with a new job whose id an ended job has.
var errUsedID = fmt.Errorf("postgres: the id of a new job is in use: %w", store.ErrData)

// Insert stores a new job; see [ops.JobTx].
func (t *tx) Insert(j *ops.Job, input []byte) error {
	of := store.OwnedID{Owner: j.Owner, ID: j.ID}
	if t.usedIDs[of] && t.jobs[of] == nil || jobOf(t.jobs[of]) != nil {
		return errUsedID
	}
	t.s.lastN++
	j.N = t.s.lastN
	j.FileCount = len(j.Files)
	e := &entry{job: j, place: unfinished, input: input, hasInput: true, isNew: true}
	if j.State != job.Running {
		e.queueBy = j.QueueDeadline()
	}
	extra, err := codec.EncodeExtra(&j.Job)
	if err != nil {
		return err
	}
	e.extra, e.bytes = extra, jobBytes(&j.Job, len(input), len(extra))
	t.bytes += e.bytes
	t.add(e)
	t.place(e)
	t.changed(e, changedState)
	t.noteIDSkew(&j.Job)
	return nil
}

// place puts a job that became queued or parked into its lane, and takes any other out.
func (t *tx) place(e *entry) {
	switch e.job.State {
	case job.Queued, job.Parked:
		t.enter(e, ops.LaneOf(&e.job.Job))
	default:
		e.leave()
	}
}

// SaveReady writes a waiting job that is queued or parked; see [ops.LineTx].
func (t *tx) SaveReady(j *ops.Job, lane string) error {
	e := t.byN[j.N]
	t.enter(e, lane)
	t.changed(e, changedState)
	return nil
}

// SaveLease writes a job that now runs; see [ops.LeaseTx].
func (t *tx) SaveLease(j *ops.Job) error {
	e := t.byN[j.N]
	e.leave()
	e.job, e.queueBy = j, time.Time{}
	t.running[j.ID], t.tokens[j.Lease.Token] = e, e
	t.changed(e, changedState)
	return nil
}

// SaveRenewal writes a renewed lease; see [ops.LeaseTx].
func (t *tx) SaveRenewal(j *ops.Job) error {
	t.changed(t.byN[j.N], changedLease)
	return nil
}

// SaveCancelRequest writes the request to cancel a running job; see [ops.LeaseTx].
func (t *tx) SaveCancelRequest(j *ops.Job) error {
	t.changed(t.byN[j.N], changedState)
	return nil
}

// SaveRequeue writes a job that waits again after its attempt; see [ops.LeaseTx].
func (t *tx) SaveRequeue(j *ops.Job) error {
	e := t.byN[j.N]
	t.stop(e)
	t.place(e)
	t.changed(e, changedState)
	return nil
}

// SaveEnd writes the end of a job; see [ops.JobTx].
func (t *tx) SaveEnd(j *ops.Job, from job.State, result *job.Result) error {
	e := t.byN[j.N]
	if from == job.Running {
		t.stop(e)
	} else {
		t.detach(e)
	}
	e.leave()
	if result != nil && (len(result.Body) > 0 || result.ContentType != "") {
		e.result = result
		e.bytes += resultBytes(result)
		t.bytes += resultBytes(result)
	}
	e.place = ended
	t.changed(e, changedState)
	return nil
}

// SaveRetry writes an ended job that waits again; see [ops.JobTx].
func (t *tx) SaveRetry(j *ops.Job, from job.State) error {
	e := t.byN[j.N]
	e.place, e.queueBy = unfinished, j.QueueDeadline()
	t.place(e)
	t.changed(e, changedState)
	return nil
}

// Repair replaces the row of a damaged job; see [ops.JobTx].
func (t *tx) Repair(j *ops.Job, from job.State) error {
	e := t.byN[j.N]
	if from == job.Running {
		t.stop(e)
	}
	e.leave()
	e.place, e.replace = ended, true
	t.changed(e, changedState)
	return t.StopAbandon(j.ID)
}

// Remove deletes a job and all that belongs to it; see [ops.JobTx].
func (t *tx) Remove(j *ops.Job) error {
	e := t.byN[j.N]
	if e == nil { // a prune removes jobs of which it has read only a few columns
		e = &entry{job: j, stored: ended, place: ended}
		if p := t.prunable[j.N]; p != nil {
			e.bytes = p.bytes
		}
		t.byN[j.N] = e
		t.jobs[store.OwnedID{Owner: j.Owner, ID: j.ID}] = e
	}
	if j.State == job.Running || t.running[j.ID] == e {
		t.stop(e)
	}
	e.leave()
	e.place = nowhere
	t.bytes -= e.bytes + outputBytes(e.job.Cursor, e.job.OutputBytes)
	t.changed(e, changedState)
	return nil
}
