package sqlite

import (
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

func (t *tx) finish(op *store.Finish) error {
	op.Err, op.State, op.Job = nil, 0, nil
	if h := t.running[op.Lease.Job]; h != nil {
		t.namedQueue(h.job.Queue) // the counts are answered also for a refused op
	}
	h := t.findLease(op.Lease)
	if h == nil {
		op.Err = store.LeaseLost(op.Lease)
		return nil
	}
	if !job.CanMove(job.Running, op.To) {
		op.Err = store.BadFinish(op.To)
		return nil
	}
	if !h.matches(op.OnlyIf, t.now) {
		op.Err = store.SweepTooLate(op.Lease.Job)
		return nil
	}
	repeated, refusal := job.CheckEntries(op.Entries, op.Progress, h.startCursor, h.job.Cursor)
	if op.Err = refusal; refusal != nil {
		return nil
	}
	entries := op.Entries
	if repeated {
		entries = nil // stored by an earlier append: only the end is new
	} else if op.Progress != nil {
		h.job.Progress = *op.Progress
	}
	if err := t.appendLast(h, entries); err != nil {
		return err
	}
	t.removeRunning(op.Lease.Job)
	h.job.Finish(&job.Finish{
		To: op.To, Failure: op.Failure, Usage: op.Usage, Delay: op.Delay, Refund: op.Refund, Unused: op.Unused, Lost: op.Lost,
	}, t.now)
	turn := t.updateCounts(&h.job.Job, job.Running)
	op.State, op.Job = h.job.State, &h.job.Job // the job has left the memory: the pointer stays valid
	if op.State.Ended() {
		return t.endRunning(h, op)
	}
	return t.requeue(&h.job, turn)
}

// endRunning writes the end of a job that ran.
func (t *tx) endRunning(h *runningJob, op *store.Finish) error {
	j, result := &h.job, op.Result
	switch {
	case j.State != job.Succeeded:
		result = nil
	// AtEnd gets a result of every succeeded job. An empty result is not stored.
	case result == nil:
		result = &job.Result{}
	}
	// AtEnd may read the output and the result, so it runs before anything is removed.
	if !op.SkipAtEnd {
		if err := t.applyAtEnd(j, result); err != nil {
			return err
		}
	}
	if h.deleted {
		return t.remove(removalOf(j, h.idempotencyKey))
	}
	if result != nil && (len(result.Body) > 0 || result.ContentType != "") {
		if err := t.q.insertResult.int(j.n).text(result.ContentType).blob(result.Body).run(); err != nil {
			return err
		}
	}
	if err := t.stopAbandonTimeout(&j.Job); err != nil {
		return err
	}
	return t.q.endRunning.int(int64(j.State)).int(j.Revision).time(j.FinishedAt).time(j.ExpiresAt).
		int(j.Cursor).int(j.OutputBytes).bytes(codec.EncodeProgress(j.Progress)).failure(j.Failure).bytes(j.Usage).int(int64(j.Losses)).int(int64(j.Cleared)).int(j.n).run()
}

// requeue writes a job that waits again after its attempt.
func (t *tx) requeue(j *row, turn int64) error {
	q := t.q.requeueRunning.int(int64(j.State)).int(j.Revision)
	if j.State == job.Scheduled {
		q.bytes(nil).int(turn).time(j.RunAt)
	} else {
		q.text(laneOf(&j.Job)).int(turn).bytes(nil)
	}
	return q.int(int64(j.Attempt)).time(j.RunAt).time(j.StartedAt).
		int(j.Cursor).int(j.OutputBytes).bytes(codec.EncodeProgress(j.Progress)).failure(j.Failure).bytes(j.Usage).int(int64(j.Losses)).int(int64(j.Cleared)).int(j.n).run()
}

// cancelWaiting cancels a job that does not run.
func (t *tx) cancelWaiting(j *row) error {
	from := j.State
	j.End(job.Cancelled, t.now)
	return t.endWaiting(j, from, false)
}

// endWaiting writes the end of a waiting job. With skipAtEnd it does not call [store.AtEnd].
func (t *tx) endWaiting(j *row, from job.State, skipAtEnd bool) error {
	t.updateCounts(&j.Job, from)
	if !skipAtEnd {
		if err := t.applyAtEnd(j, nil); err != nil {
			return err
		}
	}
	if err := t.stopAbandonTimeout(&j.Job); err != nil {
		return err
	}
	return t.q.endWaiting.int(int64(j.State)).int(j.Revision).time(j.FinishedAt).time(j.ExpiresAt).failure(j.Failure).int(j.n).run()
}

// errStop makes a query stop before its last row.
var errStop = errors.New("sqlite: enough was read")

// readText joins the text of a job's last attempt, up to limit bytes: the rows of the query,
// then the entries of the view.
func readText(q *query, n int64, view tailView, limit int) (string, error) {
	var text []byte
	add := func(e job.Entry) {
		if e.Kind == job.KindText && len(text) <= limit {
			text = append(text, e.Data...)
		}
	}
	err := q.int(n).each(func(c column) error {
		if c.int(0) != kindBlock {
			add(job.Entry{Kind: job.KindText, Data: c.bytes(1)})
		} else if err := eachEntry(c.bytes(1), add); err != nil {
			return err
		}
		if len(text) > limit {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	if err == nil {
		err = eachEntry(view.block, add)
	}
	return truncateText(text, limit), err
}
