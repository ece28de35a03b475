package fairqueue

import (
	"iter"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A key with a limit of running jobs has at most that many queued and running jobs together; its
// other ready jobs are parked. When an op removes a queued or running job, the first parked job
// of the key becomes queued at the end of the op, so that a claim need not check keys. When a
// limit was raised, the next Due op queues the parked jobs that fit.

// limitsOf returns the limits that apply to a key. Jobs without a key have only the limits of
// their queue.
func (q *Queue) limitsOf(key string) job.Limits {
	l := q.Limits
	if key == "" {
		l.KeyRunning, l.KeyWaiting = 0, 0
	}
	return l
}

// ReadyState returns the state of a job that becomes ready: Queued, or Parked if its key has
// reached its limit.
func (q *Queue) ReadyState(k Key) job.State {
	if limit := q.limitsOf(k.Name).KeyRunning; limit > 0 && q.keyState(k).busy() >= limit {
		return job.Parked
	}
	return job.Queued
}

// MayRun reports whether the limit of its key allows a claim of a queued job. It returns false
// only if the limit was set or lowered after the job was queued.
func (q *Queue) MayRun(k Key) bool {
	limit := q.limitsOf(k.Name).KeyRunning
	return limit == 0 || int(q.keyState(k).jobs[job.Running]) < limit
}

// Claimable returns how many jobs a claim that requests want jobs may lease.
func (q *Queue) Claimable(want int) int {
	if q.Counts.Paused {
		return 0
	}
	n := min(want, int(q.Counts.Queued))
	if limit := q.Limits.Running; limit > 0 {
		n = min(n, limit-int(q.Counts.Running))
	}
	return n
}

// Unparkable returns how many parked jobs of a key may be queued now.
func (q *Queue) Unparkable(k Key) int { return q.unparkable(k.Name, q.keyState(k)) }

func (q *Queue) unparkable(name string, k *keyState) int {
	parked := int(k.jobs[job.Parked])
	if limit := q.limitsOf(name).KeyRunning; limit > 0 {
		return min(parked, limit-k.busy())
	}
	return parked
}

// TryUnpark reports whether a parked job of a key may be queued because another job of the key
// ended or moved back. It returns false if the limit was lowered; then the queue records that a
// scan for parked jobs is needed when the limit rises again.
func (q *Queue) TryUnpark(k Key) bool {
	ok := q.Unparkable(k) > 0
	q.scanNeeded = q.scanNeeded || !ok
	return ok
}

// NeedsUnparkScan reports whether there may be parked jobs that could be queued.
func (q *Queue) NeedsUnparkScan() bool {
	return q.scanNeeded || q.scannedKeyRunning != q.Limits.KeyRunning
}

// EndUnparkScan records that the parked jobs of [Queue.UnparkableKeys] were queued. left is true
// if some of them were not.
func (q *Queue) EndUnparkScan(left bool) {
	q.scannedKeyRunning, q.scanNeeded = q.Limits.KeyRunning, left
}

// UnparkableKeys lists the keys that have parked jobs which may be queued now, with their
// number.
func (q *Queue) UnparkableKeys() iter.Seq2[Key, int] {
	return func(yield func(Key, int) bool) {
		for _, t := range q.tenants {
			for name, k := range t.keys {
				if k.jobs[job.Parked] == 0 {
					continue
				}
				if n := q.unparkable(name, k); n > 0 && !yield(Key{t.name, name}, n) {
					return
				}
			}
		}
	}
}
