package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// readyState returns whether a job that becomes ready is queued or parked.
func (a *applier) readyState(j *job.Job) job.State {
	return a.m.queue(j.Queue).ReadyState(fairqueue.KeyOf(j))
}

// freedKey is a key in which a job freed a place while others are parked.
type freedKey struct {
	queue string
	key   fairqueue.Key
}

// unparkFreedKeys queues one parked job for each freed place. It returns how many it queued.
func (a *applier) unparkFreedKeys() (unparked int, err error) {
	for _, f := range a.freed {
		// The op itself may have filled the place again. Then no parked job can run.
		n, err := a.unpark(f.queue, f.key, min(1, a.m.queue(f.queue).Unparkable(f.key)))
		if err != nil {
			return 0, err
		}
		unparked += n
	}
	a.freed = a.freed[:0]
	return unparked, nil
}

// unparkChangedLimits queues parked jobs in queues whose limits may have changed.
func (a *applier) unparkChangedLimits(limit int) (unparked int, err error) {
	for name := range a.m.queues {
		q := a.m.queue(name)
		if !q.NeedsUnparkScan() {
			continue
		}
		// Without parked jobs the scan is over: a later park knows the new limit.
		if q.Counts.Parked > 0 {
			n, err := a.unparkQueue(q, limit-unparked)
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

func (a *applier) unparkQueue(q *queue, limit int) (unparked int, err error) {
	for key, places := range q.UnparkableKeys() {
		n, err := a.unpark(q.name, key, min(places, limit-unparked))
		if err != nil {
			return 0, err
		}
		if unparked += n; unparked == limit {
			break
		}
	}
	return unparked, nil
}

// unpark queues the first parked jobs of a key.
func (a *applier) unpark(queue string, key fairqueue.Key, limit int) (int, error) {
	if limit <= 0 {
		return 0, nil
	}
	jobs, err := a.tx.Parked(queue, Lane(job.Parked, key, ""), limit)
	for _, j := range jobs {
		if err == nil {
			err = a.moveReady(j, job.Queued)
		}
	}
	return len(jobs), err
}

// moveReady moves a waiting job to queued or parked.
func (a *applier) moveReady(j *Job, to job.State) error {
	from := j.State
	j.MoveWaiting(to)
	j.Turn = a.move(&j.Job, from, false)
	return a.saveReady(j, LaneOf(&j.Job))
}

// saveReady writes the lane of a waiting job, and adds the move to the batch. No op names the job,
// so its watchers learn of the move only from the batch.
func (a *applier) saveReady(j *Job, lane string) error {
	a.b.Moved = append(a.b.Moved, store.Moved{ID: j.ID, State: j.State, Revision: j.Revision})
	return a.tx.SaveReady(j, lane)
}

// park parks a queued job. The job keeps its turn, and so its place before jobs that became ready
// later.
func (a *applier) park(j *Job) error {
	from := j.State
	j.MoveWaiting(job.Parked)
	a.move(&j.Job, from, false)
	return a.saveReady(j, LaneOf(&j.Job))
}
