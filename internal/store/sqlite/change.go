package sqlite

import (
	"bytes"
	"time"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// findOwned finds a job of an owner. The first error is the refusal for the op, the second
// ends the batch.
func (t *tx) findOwned(owner job.Owner, id job.ID) (*foundJob, error, error) {
	f, err := t.find(owner, id)
	if err != nil {
		return nil, nil, err
	}
	if f == nil || f.deleted {
		return nil, store.NoJob(id), nil
	}
	return f, nil, nil
}

func (t *tx) cancel(op *store.Cancel) (err error) {
	op.Err, op.Ended = nil, false
	f, refusal, err := t.findOwned(op.Owner, op.ID)
	if op.Err = refusal; refusal != nil || err != nil {
		return err
	}
	if op.IfAbandoned {
		if op.Err, err = t.checkAbandoned(op); op.Err != nil || err != nil {
			return err
		}
	}
	switch {
	case f.job.State.Waiting():
		op.Ended = true
		err = t.cancelWaiting(&f.job)
	// A second cancel of a running job changes nothing: the first request's time counts.
	case f.job.State == job.Running && f.job.CancelRequestedAt.IsZero():
		h := t.running[op.ID]
		h.job.RequestCancel(t.now)
		f.job = h.job
		if err = t.q.requestCancel.time(t.now).int(h.job.Revision).int(h.job.n).run(); err == nil {
			err = t.stopAbandonTimeout(&h.job.Job)
		}
	}
	op.Job = f.job.Job
	return err
}

func (t *tx) delete(op *store.Delete) error {
	op.Err, op.Running = nil, false
	f, refusal, err := t.findOwned(op.Owner, op.ID)
	if err != nil {
		return err
	}
	if refusal != nil {
		op.Err = refusal
		// A second delete of a job succeeds, so that a lost answer can be repeated.
		again, err := t.wasDeletedBy(op.Owner, op.ID)
		if again {
			op.Err = nil
			op.Running = t.running[op.ID] != nil
		}
		return err
	}
	// The delete is recorded now, so that a second one succeeds while the attempt still runs.
	if err := t.rememberDelete(op); err != nil {
		return err
	}
	if f.job.State == job.Running {
		op.Running = true
		return t.deleteAtEnd(t.running[op.ID])
	}
	if f.job.State.Waiting() {
		if err := t.cancelWaiting(&f.job); err != nil {
			return err
		}
	}
	return t.remove(removalOf(&f.job, f.idempotencyKey))
}

// rememberDelete records a delete, unless its owner may keep no more.
func (t *tx) rememberDelete(op *store.Delete) error {
	fits, err := t.fitsOwner(op.Owner, deleteBytes)
	if err != nil || !fits {
		return err
	}
	t.keep(op.Owner, deleteBytes)
	return t.q.insertDeleted.id(&op.ID).text(op.Owner.Tenant).text(op.Owner.User).time(t.now.Add(store.KeepDeletes)).run()
}

// deleteAtEnd marks a running job as deleted. No read finds it any more, and it is removed
// when its attempt ends.
func (t *tx) deleteAtEnd(h *runningJob) error {
	h.deleted = true
	h.job.RequestCancel(t.now)
	if err := t.stopAbandonTimeout(&h.job.Job); err != nil {
		return err
	}
	return t.q.markDeleted.time(h.job.CancelRequestedAt).int(h.job.Revision).int(h.job.n).run()
}

func (t *tx) wasDeletedBy(owner job.Owner, id job.ID) (bool, error) {
	var by job.Owner
	known, err := t.q.wasDeleted.id(&id).first(func(c column) error {
		by = job.Owner{Tenant: c.text(0), User: c.text(1)}
		return nil
	})
	return known && by == owner, err
}

// removal names a job to remove and has the keys of its rows in other tables.
type removal struct {
	n              int64
	id             job.ID
	files          int
	owner          job.Owner
	idempotencyKey string
	tally          string
}

func removalOf(j *row, idem string) removal {
	return removal{n: j.n, id: j.ID, files: j.files, owner: j.Owner, idempotencyKey: idem, tally: j.Tally}
}

// remove deletes an ended job and all of its rows. Its idempotency key stays until its time
// has passed.
func (t *tx) remove(g removal) error {
	for _, q := range [...]*query{t.q.deleteOutput, t.q.deleteInput, t.q.deleteResult, t.q.deleteJob} {
		if err := q.int(g.n).run(); err != nil {
			return err
		}
	}
	if g.tally != "" {
		c := t.tallyChange(tallyKey{g.owner, g.tally})
		c.rows--
		c.removed = true
	}
	if g.files > 0 {
		t.batch.Removed = append(t.batch.Removed, g.id)
		if err := t.q.deleteWithFiles.int(g.n).run(); err != nil {
			return err
		}
	}
	if g.idempotencyKey == "" {
		return nil
	}
	return t.releaseKey(g.owner, g.idempotencyKey)
}

// releaseKey deletes the idempotency key of a removed job, or leaves it to a prune if its time
// has not passed.
func (t *tx) releaseKey(o job.Owner, key string) error {
	var until time.Time
	known, err := t.q.idempotent.text(o.Tenant).text(o.User).text(key).first(func(c column) error {
		until = c.time(2)
		return nil
	})
	if err != nil || !known {
		return err
	}
	// The key answers repeated submits until its time has passed, also without its job.
	if !until.After(t.now) {
		return t.q.deleteIdempotent.text(o.Tenant).text(o.User).text(key).run()
	}
	t.keep(o, leftoverBytes)
	return t.q.insertLeftover.time(until).text(o.Tenant).text(o.User).text(key).run()
}

func (t *tx) retry(op *store.Retry) error {
	op.Err = nil
	f, refusal, err := t.findOwned(op.Owner, op.ID)
	if op.Err = refusal; refusal != nil || err != nil {
		return err
	}
	j := &f.job
	if op.Err = store.NotRetryable(&j.Job); op.Err != nil {
		op.Job = j.Job
		return nil
	}
	from := j.State
	j.Retry(t.readyState(&j.Job), t.now)
	turn := t.updateCounts(&j.Job, from)
	t.changedQueue(j.Queue).Counts.Retried++
	if j.Tally != "" {
		t.tallyChange(tallyKeyOf(&j.Job)).Retried++
	}
	op.Job = j.Job
	// The abandon timeout counts from the retry.
	if err := t.startAbandonTimeout(&j.Job, j.n); err != nil {
		return err
	}
	if err := t.applyAtEnd(j, nil); err != nil {
		return err
	}
	return t.q.retry.int(int64(j.State)).int(j.Revision).text(laneOf(&j.Job)).int(turn).time(j.RunAt).time(j.QueueDeadline()).int(j.n).run()
}

func compareIDs(a, b job.ID) int { return bytes.Compare(a[:], b[:]) }

// truncateText shortens a text to limit bytes without splitting a character.
func truncateText(text []byte, limit int) string {
	if len(text) <= limit {
		return string(text)
	}
	// Go back at most three bytes, to the start of the cut character.
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return string(text[:limit])
}
