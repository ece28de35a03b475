package sqlite

import (
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

// lane returns the lane of a ready job: the value of the column lane. A queued job waits in the
// lane of its tenant and its resource, a parked one in a lane of its key. DESIGN.md lists the
// forms.
func lane(s job.State, k fairqueue.Key, resource string) string {
	switch {
	case s == job.Parked && k.Tenant == "":
		return "+" + k.Name
	case s == job.Parked:
		return "-" + strconv.Itoa(len(k.Tenant)) + ":" + k.Tenant + k.Name
	case resource != "":
		return "@" + strconv.Itoa(len(k.Tenant)) + ":" + k.Tenant + resource
	case k.Tenant == "":
		return ""
	}
	return "=" + k.Tenant
}

// laneOf returns the lane of a queued or parked job.
func laneOf(j *job.Job) string { return lane(j.State, fairqueue.KeyOf(j), j.Resource) }

// parseLane returns the state of the jobs in a lane, their tenant, and the resource of queued ones.
func parseLane(lane string) (s job.State, tenant, resource string) {
	if lane == "" {
		return job.Queued, "", ""
	}
	switch kind, rest := lane[0], lane[1:]; kind {
	case suspectLanePrefix[0]:
		return job.Parked, rest, ""
	case '=':
		return job.Queued, rest, ""
	case '@':
		tenant, resource = cutTenant(rest)
		return job.Queued, tenant, resource
	case '-':
		tenant, _ = cutTenant(rest)
		return job.Parked, tenant, ""
	}
	return job.Parked, "", ""
}

// cutTenant parses the length of a tenant, a colon, the tenant, and more.
func cutTenant(text string) (tenant, more string) {
	size, rest, _ := strings.Cut(text, ":")
	if n, err := strconv.Atoi(size); err == nil && 0 <= n && n <= len(rest) {
		return rest[:n], rest[n:]
	}
	return "", ""
}

// readyState returns whether a job that becomes ready is queued or parked.
func (t *tx) readyState(j *job.Job) job.State {
	return t.queue(j.Queue).ReadyState(fairqueue.KeyOf(j))
}

// freedKey is a key in which a job freed a place while others are parked.
type freedKey struct {
	queue string
	key   fairqueue.Key
}

// unparkFreedKeys queues one parked job for each freed place. It returns how many it queued.
func (t *tx) unparkFreedKeys() (unparked int, err error) {
	for _, f := range t.freedKeys {
		// The op itself may have filled the place again. Then no parked job can run.
		n, err := t.unpark(f.queue, f.key, min(1, t.queue(f.queue).Unparkable(f.key)))
		if err != nil {
			return 0, err
		}
		unparked += n
	}
	t.freedKeys = t.freedKeys[:0]
	return unparked, nil
}

// unparkChangedLimits queues parked jobs in queues whose limits may have changed.
func (t *tx) unparkChangedLimits(limit int) (unparked int, err error) {
	for name := range t.queues {
		q := t.queue(name)
		if !q.NeedsUnparkScan() {
			continue
		}
		// Without parked jobs the scan is over: a later park knows the new limit.
		if q.Counts.Parked > 0 {
			n, err := t.unparkQueue(name, q, limit-unparked)
			if err != nil {
				return 0, err
			}
			unparked += n
		}
		// A scan that reached its limit is continued by the next Due.
		q.EndUnparkScan(unparked == limit)
	}
	return unparked, nil
}

func (t *tx) unparkQueue(queue string, q *queueState, limit int) (unparked int, err error) {
	for key, places := range q.UnparkableKeys() {
		n, err := t.unpark(queue, key, min(places, limit-unparked))
		if err != nil {
			return 0, err
		}
		if unparked += n; unparked == limit {
			break
		}
	}
	return unparked, nil
}

// unpark queues the first parked jobs of a key. It reads only the columns that the move needs.
func (t *tx) unpark(queue string, key fairqueue.Key, limit int) (int, error) {
	if limit <= 0 {
		return 0, nil
	}
	var rows []row
	err := t.q.parked.text(queue).text(lane(job.Parked, key, "")).int(int64(limit)).each(func(c column) error {
		j := job.Job{ID: c.id(2), Queue: queue, Owner: job.Owner{Tenant: key.Tenant, User: c.text(4)}, Key: key.Name,
			State: job.Parked, Priority: int(c.int(1)), Revision: c.int(3)}
		j.Tally, j.Resource = codec.DecodeGroups(c.bytes(5))
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

// moveReady moves a waiting job to queued or parked.
func (t *tx) moveReady(j *row, to job.State) error {
	from := j.State
	j.MoveWaiting(to)
	return t.saveReady(j, laneOf(&j.Job), t.updateCounts(&j.Job, from))
}

// saveReady writes the lane of a waiting job, and adds the move to the batch. No op names the job,
// so its watchers learn of the move only from the batch.
func (t *tx) saveReady(j *row, lane string, turn int64) error {
	t.batch.Moved = append(t.batch.Moved, store.Moved{ID: j.ID, State: j.State, Revision: j.Revision})
	return t.q.setReady.int(int64(j.State)).int(j.Revision).text(lane).int(turn).int(j.n).run()
}

// park parks a queued job. The job keeps its turn, and so its place before jobs that became ready
// later.
func (t *tx) park(j *row, turn int64) error {
	from := j.State
	j.MoveWaiting(job.Parked)
	t.updateCounts(&j.Job, from)
	return t.saveReady(j, laneOf(&j.Job), turn)
}
