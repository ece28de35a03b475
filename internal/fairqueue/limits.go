package fairqueue

import (
	"iter"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A key with a limit of running jobs has at most that many ready jobs of each resource in the line:
// its running jobs and its queued jobs that need the resource. Its other ready jobs are parked. So
// a job that waits for room of its resource takes no place of a job that needs another one.
//
// The queued jobs of a key may therefore be more than its limit allows to run. A claim that finds
// such a job parks it; see [Queue.MayRun]. When an op frees a place, the first parked job of the
// key and of each resource that now has a place becomes queued at the end of the op. When a limit
// was raised, the next Due op queues the parked jobs that fit.

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
// reached its limit for the resource.
func (q *Queue) ReadyState(k Key, resource string) job.State {
	if limit := q.limitsOf(k.Name).KeyRunning; limit > 0 && q.keyState(k).busy(resource) >= limit {
		return job.Parked
	}
	return job.Queued
}

// MayRun reports whether the limit of its key allows a claim of a queued job. If not, the claim
// parks the job: others of its key run, which needed another resource or were claimed before the
// limit was set or lowered.
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

// Unparkable returns the resources, with "" for none, of the parked jobs of a key that may be
// queued now, with their number.
func (q *Queue) Unparkable(k Key) iter.Seq2[string, int] {
	s := q.keyState(k)
	return func(yield func(string, int) bool) {
		if n := q.unparkable(k.Name, s, &s.plain); n > 0 && !yield("", n) {
			return
		}
		for i := range s.of { // queuing the jobs adds no entry
			if n := q.unparkable(k.Name, s, &s.of[i]); n > 0 && !yield(s.of[i].name, n) {
				return
			}
		}
	}
}

func (q *Queue) unparkable(name string, k *keyState, r *keyResource) int {
	if limit := q.limitsOf(name).KeyRunning; limit > 0 {
		return min(int(r.parked), limit-int(k.jobs[job.Running]+r.queued))
	}
	return int(r.parked)
}

// TryUnpark reports whether a parked job of a key may be queued because another job of the key
// ended or moved back. It returns false if the limit was lowered; then the queue records that a
// scan for parked jobs is needed when the limit rises again.
func (q *Queue) TryUnpark(k Key) bool {
	for range q.Unparkable(k) {
		return true
	}
	q.scanNeeded = true
	return false
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

// UnparkableKeys lists the keys that have parked jobs which may be queued now.
func (q *Queue) UnparkableKeys() iter.Seq[Key] {
	return func(yield func(Key) bool) {
		for _, t := range q.tenants {
			for name, k := range t.keys {
				if k.jobs[job.Parked] == 0 {
					continue
				}
				key := Key{t.name, name}
				for range q.Unparkable(key) {
					if !yield(key) {
						return
					}
					break
				}
			}
		}
	}
}
