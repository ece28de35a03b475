package sqlite

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// A key with a limit has no more than that queued and running together; its other
// ready jobs are parked. Whatever takes one of those away lets the first parked one
// follow, at the end of the same op, so that a claim need not look at keys. Room
// that comes with another limit is looked for by each due.

// lane is where a ready job of the key waits: see the column of that name.
func lane(s job.State, key string) string {
	if s == job.Parked {
		return "+" + key
	}
	return ""
}

// busy says whether a job of the state takes of its key's limit.
func busy(s job.State) bool { return s == job.Queued || s == job.Running }

// readyState is how a job that becomes ready waits.
func (t *tx) readyState(j *job.Job) job.State {
	q := t.queue(j.Queue)
	if limit := q.held(j.Key).KeyRunning; limit > 0 && q.key(j.Key).busy() >= limit {
		return job.Parked
	}
	return job.Queued
}

// freed is a key of which a job gave up its place.
type freed struct{ queue, key string }

// free notes that a job gave up its place while others of its key are parked.
func (t *tx) free(q *queueState, j *job.Job, k *keyTurn) {
	if q.room(j.Key, k) > 0 {
		t.freed = append(t.freed, freed{j.Queue, j.Key})
	} else {
		q.missed = true // the limit may be raised again
	}
}

// room is how many parked jobs of a key may be queued now.
func (q *queueState) room(key string, k *keyTurn) int {
	parked := int(k.jobs[job.Parked])
	if limit := q.held(key).KeyRunning; limit > 0 {
		return min(parked, limit-k.busy())
	}
	return parked
}

// unparkFreed lets one parked job follow for each that gave up its place.
func (t *tx) unparkFreed() (unparked int, err error) {
	for _, f := range t.freed {
		q := t.queue(f.queue)
		n, err := t.unpark(f.queue, f.key, min(1, q.room(f.key, q.key(f.key))))
		if err != nil {
			return 0, err
		}
		unparked += n
	}
	t.freed = t.freed[:0]
	return unparked, nil
}

// unparkAll looks for parked jobs with room where a limit may have changed.
func (t *tx) unparkAll(most int) (unparked int, err error) {
	for name := range t.queues {
		q := t.queue(name)
		limit := q.limits.KeyRunning
		if q.limit == limit && !q.missed {
			continue
		}
		if q.counts.Parked > 0 {
			n, err := t.unparkQueue(name, q, most-unparked)
			if err != nil {
				return 0, err
			}
			unparked += n
		}
		q.limit, q.missed = limit, unparked == most
	}
	return unparked, nil
}

func (t *tx) unparkQueue(queue string, q *queueState, most int) (unparked int, err error) {
	for key, k := range q.keys {
		if k.jobs[job.Parked] == 0 {
			continue
		}
		n, err := t.unpark(queue, key, min(q.room(key, k), most-unparked))
		if err != nil {
			return 0, err
		}
		if unparked += n; unparked == most {
			break
		}
	}
	return unparked, nil
}

// unpark queues the first parked jobs of a key. Of their rows no more is read than it
// takes to say that they moved.
func (t *tx) unpark(queue, key string, most int) (int, error) {
	if most <= 0 {
		return 0, nil
	}
	var rows []row
	err := t.q.parked.text(queue).text(lane(job.Parked, key)).int(int64(most)).each(func(c column) error {
		j := job.Job{ID: c.id(2), Queue: queue, Key: key, State: job.Parked, Priority: int(c.int(1)), Revision: c.int(3)}
		rows = append(rows, row{Job: j, n: c.int(0)})
		return nil
	})
	for i := range rows {
		if err == nil {
			err = t.line(&rows[i], job.Queued)
		}
	}
	return len(rows), err
}

// line moves a waiting job to where it waits when it is ready.
func (t *tx) line(j *row, to job.State) error {
	from := j.State
	j.Line(to)
	return t.lined(j, t.count(&j.Job, from))
}

// lined writes where a job waits now, and has those told who follow it: no op names
// the job.
func (t *tx) lined(j *row, turn int64) error {
	t.batch.Moved = append(t.batch.Moved, store.Moved{ID: j.ID, State: j.State, Revision: j.Revision})
	return t.q.ready.int(int64(j.State)).int(j.Revision).text(lane(j.State, j.Key)).int(turn).int(j.n).run()
}

// park takes a queued job out of the line. It stands before those that were parked
// when they became ready after it.
func (t *tx) park(j *row, turn int64) error {
	from := j.State
	j.Line(job.Parked)
	t.count(&j.Job, from)
	return t.lined(j, turn)
}

// claimable is how many more jobs a claim may lease.
func (t *tx) claimable(op *store.Claim) int {
	q := t.queue(op.Queue)
	if q.counts.Paused {
		return 0
	}
	n := min(len(op.Tokens)-len(op.Claimed), int(q.counts.Queued))
	if limit := q.limits.Running; limit > 0 {
		n = min(n, limit-int(q.counts.Running))
	}
	return n
}
