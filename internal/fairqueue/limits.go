package fairqueue

import (
	"iter"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A key with a limit has no more than that queued and running together; its other
// ready jobs are parked. Whatever takes one of those away lets the first parked one
// follow, at the end of the same op, so that a claim need not look at keys. Room that
// comes with another limit is looked for by each due.

// limitsOf is what the jobs of a key are held to. Those without a key belong to nobody
// in particular, and are held to what their queue is.
func (q *Queue) limitsOf(key string) job.Limits {
	l := q.Limits
	if key == "" {
		l.KeyRunning, l.KeyWaiting = 0, 0
	}
	return l
}

// ReadyState is how a job that becomes ready waits.
func (q *Queue) ReadyState(k Key) job.State {
	if limit := q.limitsOf(k.Name).KeyRunning; limit > 0 && q.keyState(k).busy() >= limit {
		return job.Parked
	}
	return job.Queued
}

// MayRun says whether a queued job may be claimed, as far as its key is concerned: the
// limit may not have been there when it was queued.
func (q *Queue) MayRun(k Key) bool {
	limit := q.limitsOf(k.Name).KeyRunning
	return limit == 0 || int(q.keyState(k).jobs[job.Running]) < limit
}

// Claimable is how many more jobs a claim of so many may lease.
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

// Unparkable is how many parked jobs of a key may be queued now.
func (q *Queue) Unparkable(k Key) int { return q.unparkable(k.Name, q.keyState(k)) }

func (q *Queue) unparkable(name string, k *keyState) int {
	parked := int(k.jobs[job.Parked])
	if limit := q.limitsOf(name).KeyRunning; limit > 0 {
		return min(parked, limit-k.busy())
	}
	return parked
}

// TryUnpark says whether a parked job may follow one of its key that gave up its place.
// If not, that is remembered for when the limit is raised again.
func (q *Queue) TryUnpark(k Key) bool {
	follows := q.Unparkable(k) > 0
	q.scanNeeded = q.scanNeeded || !follows
	return follows
}

// NeedsUnparkScan says whether parked jobs may have room for which nobody has looked yet.
func (q *Queue) NeedsUnparkScan() bool {
	return q.scanNeeded || q.scannedKeyRunning != q.Limits.KeyRunning
}

// EndUnparkScan notes that all parked jobs with room were queued, or that some were left.
func (q *Queue) EndUnparkScan(left bool) {
	q.scannedKeyRunning, q.scanNeeded = q.Limits.KeyRunning, left
}

// UnparkableKeys lists the keys with parked jobs, and how many of each may be queued.
func (q *Queue) UnparkableKeys() iter.Seq2[Key, int] {
	return func(yield func(Key, int) bool) {
		for _, t := range q.tenants {
			for name, k := range t.keys {
				if k.jobs[job.Parked] == 0 {
					continue
				}
				if room := q.unparkable(name, k); room > 0 && !yield(Key{t.name, name}, room) {
					return
				}
			}
		}
	}
}
