package ops

import (
	"cmp"
	"math"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// readyState returns whether a job that becomes ready is queued or parked.
func (a *applier) readyState(j *job.Job) job.State {
	return a.m.queue(j.Queue).ReadyState(fairqueue.KeyOf(j), j.Resource)
}

// freedKey is a key in which a job freed a place while others are parked.
type freedKey struct {
	queue string
	key   fairqueue.Key
}

// unparkFreedKeys queues, for each freed place, one parked job of each resource that may use it. It
// returns how many it queued.
func (a *applier) unparkFreedKeys() (unparked int, err error) {
	for _, f := range a.freed {
		// The op itself may have filled the place again. Then no parked job can run.
		n, err := a.unpark(f.queue, f.key, 1, math.MaxInt)
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
	for key := range q.UnparkableKeys() {
		n, err := a.unpark(q.name, key, math.MaxInt, limit-unparked)
		if err != nil {
			return 0, err
		}
		if unparked += n; unparked == limit {
			break
		}
	}
	return unparked, nil
}

// unpark queues the first parked jobs of a key that have a place, in the order in which they became
// ready: up to each of every resource, and up to limit in all.
func (a *applier) unpark(queue string, key fairqueue.Key, each, limit int) (int, error) {
	var jobs []*Job
	for resource, places := range a.m.queue(queue).Unparkable(key) {
		first, err := a.tx.Parked(queue, Lane(job.Parked, key, resource), min(places, each, limit))
		if err != nil {
			return 0, err
		}
		jobs = append(jobs, first...)
	}
	slices.SortFunc(jobs, func(a, b *Job) int { return cmp.Or(cmp.Compare(a.Turn, b.Turn), cmp.Compare(a.N, b.N)) })
	jobs = jobs[:min(limit, len(jobs))]
	for _, j := range jobs {
		if err := a.moveReady(j, job.Queued); err != nil {
			return 0, err
		}
	}
	return len(jobs), nil
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
