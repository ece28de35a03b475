package sqlite

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// Ready reads queued jobs of a lane; see [ops.LineTx].
func (t *tx) Ready(queue, lane string, limit int) (ready []*ops.Job, err error) {
	_, _, resource := ops.ParseLane(lane)
	err = t.q.nextReady.text(queue).text(lane).int(int64(limit)).each(func(c column) error {
		j := scanJobRow(c)
		j.Resource = resource // what the row says may be damaged
		const at = afterJobColumns
		j.Turn, j.IdempotencyKey = c.int(at), c.text(at+1)
		ready = append(ready, j)
		return nil
	})
	return ready, err
}

// Parked reads parked jobs of a lane; see [ops.LineTx]. It reads only the columns that a move needs.
func (t *tx) Parked(queue, lane string, limit int) (parked []*ops.Job, err error) {
	_, _, resource := ops.ParseLane(lane)
	err = t.q.parked.text(queue).text(lane).int(int64(limit)).each(func(c column) error {
		j := job.Job{ID: c.id(2), Queue: queue, Owner: job.Owner{Tenant: c.text(7), User: c.text(4)}, Key: c.text(6),
			State: job.Parked, Priority: int(c.int(1)), Revision: c.int(3), Resource: resource}
		j.Tally = codec.DecodeTally(c.bytes(5))
		parked = append(parked, &ops.Job{Job: j, N: c.int(0), Turn: c.int(8)})
		return nil
	})
	return parked, err
}

// FirstSuspect finds the parked suspect of a queue that has been ready for the longest time; see
// [ops.LineTx].
func (t *tx) FirstSuspect(queue string) (j *ops.Job, err error) {
	_, err = t.q.firstSuspect.text(queue).first(func(c column) error {
		j = &ops.Job{N: c.int(0), Job: job.Job{
			ID: c.id(2), Owner: job.Owner{Tenant: c.text(5), User: c.text(7)}, Queue: queue, Key: c.text(4),
			State: job.Parked, Priority: int(c.int(1)), Revision: c.int(3), RunAt: c.time(6),
		}}
		j.Tally = codec.DecodeTally(c.bytes(8))
		_, _, j.Resource = ops.ParseLane(c.text(9))
		return nil
	})
	return j, err
}

// Due reads scheduled jobs whose time has come; see [ops.LineTx].
func (t *tx) Due(limit int) ([]*ops.Job, error) { return t.readWaiting(t.q.due, limit) }

// Expired reads waiting jobs past their queue deadline; see [ops.LineTx].
func (t *tx) Expired(limit int) ([]*ops.Job, error) { return t.readWaiting(t.q.expired, limit) }

func (t *tx) readWaiting(q *query, limit int) (jobs []*ops.Job, err error) {
	err = q.time(t.now).int(int64(limit)).each(func(c column) error {
		jobs = append(jobs, scanJobRow(c))
		return nil
	})
	for _, j := range jobs {
		if err == nil {
			err = t.completeDamaged(j)
		}
	}
	return jobs, err
}

// SaveReady writes the lane of a waiting job; see [ops.LineTx].
func (t *tx) SaveReady(j *ops.Job, lane string) error {
	return t.q.setReady.int(int64(j.State)).int(j.Revision).text(lane).int(j.Turn).int(j.N).run()
}
