package sqlite

import (
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// lane is where a ready job of the key waits: see the column of that name. A queued
// job is in the line of its tenant, a parked one in a line of its key.
func lane(s job.State, k fairqueue.Key) string {
	switch {
	case s == job.Parked && k.Tenant == "":
		return "+" + k.Name
	case s == job.Parked:
		return "-" + strconv.Itoa(len(k.Tenant)) + ":" + k.Tenant + k.Name
	case k.Tenant == "":
		return ""
	}
	return "=" + k.Tenant
}

// parseLane says how a job waits in a lane, and whose it is.
func parseLane(lane string) (s job.State, tenant string) {
	if lane == "" {
		return job.Queued, ""
	}
	switch kind, rest := lane[0], lane[1:]; kind {
	case suspectLanePrefix[0]:
		return job.Parked, rest
	case '=':
		return job.Queued, rest
	case '-':
		size, rest, _ := strings.Cut(rest, ":")
		n, err := strconv.Atoi(size)
		if err == nil && n <= len(rest) {
			tenant = rest[:n]
		}
		return job.Parked, tenant
	}
	return job.Parked, ""
}

// readyState is how a job that becomes ready waits.
func (t *tx) readyState(j *job.Job) job.State {
	return t.queue(j.Queue).ReadyState(fairqueue.KeyOf(j))
}

// freed is a key of which a job gave up its place while others are parked.
type freedKey struct {
	queue string
	key   fairqueue.Key
}

// unparkFreed lets one parked job follow for each that gave up its place.
func (t *tx) unparkFreedKeys() (unparked int, err error) {
	for _, f := range t.freedKeys {
		n, err := t.unpark(f.queue, f.key, min(1, t.queue(f.queue).Room(f.key)))
		if err != nil {
			return 0, err
		}
		unparked += n
	}
	t.freedKeys = t.freedKeys[:0]
	return unparked, nil
}

// unparkAll looks for parked jobs with room where a limit may have changed.
func (t *tx) unparkChangedLimits(most int) (unparked int, err error) {
	for name := range t.queues {
		q := t.queue(name)
		if !q.Unlooked() {
			continue
		}
		if q.Counts.Parked > 0 {
			n, err := t.unparkQueue(name, q, most-unparked)
			if err != nil {
				return 0, err
			}
			unparked += n
		}
		q.Looked(unparked == most)
	}
	return unparked, nil
}

func (t *tx) unparkQueue(queue string, q *queueState, most int) (unparked int, err error) {
	for key, room := range q.WithRoom() {
		n, err := t.unpark(queue, key, min(room, most-unparked))
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
func (t *tx) unpark(queue string, key fairqueue.Key, most int) (int, error) {
	if most <= 0 {
		return 0, nil
	}
	var rows []row
	err := t.q.parked.text(queue).text(lane(job.Parked, key)).int(int64(most)).each(func(c column) error {
		j := job.Job{ID: c.id(2), Queue: queue, Owner: job.Owner{Tenant: key.Tenant, User: c.text(4)}, Key: key.Name, Tally: decodeTally(c.bytes(5)),
			State: job.Parked, Priority: int(c.int(1)), Revision: c.int(3)}
		rows = append(rows, row{Job: j, n: c.int(0)})
		return nil
	})
	for i := range rows {
		if err == nil {
			err = t.moveReady(&rows[i], job.Queued)
		}
	}
	return len(rows), err
}

// line moves a waiting job to where it waits when it is ready.
func (t *tx) moveReady(j *row, to job.State) error {
	from := j.State
	j.MoveWaiting(to)
	return t.saveReady(j, lane(to, fairqueue.KeyOf(&j.Job)), t.count(&j.Job, from))
}

// lined writes where a job waits now, and has those told who follow it: no op names
// the job.
func (t *tx) saveReady(j *row, lane string, turn int64) error {
	t.batch.Moved = append(t.batch.Moved, store.Moved{ID: j.ID, State: j.State, Revision: j.Revision})
	return t.q.setReady.int(int64(j.State)).int(j.Revision).text(lane).int(turn).int(j.n).run()
}

// park takes a queued job out of the line. It stands before those that were parked
// when they became ready after it.
func (t *tx) park(j *row, turn int64) error {
	from := j.State
	j.MoveWaiting(job.Parked)
	t.count(&j.Job, from)
	return t.saveReady(j, lane(job.Parked, fairqueue.KeyOf(&j.Job)), turn)
}
