package fairqueue

import (
	"iter"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A key with a limit has no more than that queued and running together; its other
// ready jobs are parked. Whatever takes one of those away lets the first parked one
// follow, at the end of the same op, so that a claim need not look at keys. Room that
// comes with another limit is looked for by each due.

// held is what the jobs of a key are held to. Those without a key belong to nobody
// in particular, and are held to what their queue is.
func (q *Queue) held(key string) job.Limits {
	l := q.Limits
	if key == "" {
		l.KeyRunning, l.KeyWaiting = 0, 0
	}
	return l
}

// ReadyState is how a job that becomes ready waits.
func (q *Queue) ReadyState(k Key) job.State {
	if limit := q.held(k.Name).KeyRunning; limit > 0 && q.known(k).busy() >= limit {
		return job.Parked
	}
	return job.Queued
}

// MayRun says whether a queued job may be claimed, as far as its key is concerned: the
// limit may not have been there when it was queued.
func (q *Queue) MayRun(k Key) bool {
	limit := q.held(k.Name).KeyRunning
	return limit == 0 || int(q.known(k).jobs[job.Running]) < limit
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

// Room is how many parked jobs of a key may be queued now.
func (q *Queue) Room(k Key) int { return q.room(k.Name, q.known(k)) }

func (q *Queue) room(name string, k *keyState) int {
	parked := int(k.jobs[job.Parked])
	if limit := q.held(name).KeyRunning; limit > 0 {
		return min(parked, limit-k.busy())
	}
	return parked
}

// Follows says whether a parked job may follow one of its key that gave up its place.
// If not, that is remembered for when the limit is raised again.
func (q *Queue) Follows(k Key) bool {
	follows := q.Room(k) > 0
	q.missed = q.missed || !follows
	return follows
}

// Unlooked says whether parked jobs may have room for which nobody has looked yet.
func (q *Queue) Unlooked() bool { return q.missed || q.keyRunning != q.Limits.KeyRunning }

// Looked notes that all parked jobs with room were queued, or that some were left.
func (q *Queue) Looked(left bool) { q.keyRunning, q.missed = q.Limits.KeyRunning, left }

// WithRoom lists the keys with parked jobs, and how many of each may be queued.
func (q *Queue) WithRoom() iter.Seq2[Key, int] {
	return func(yield func(Key, int) bool) {
		for _, t := range q.tenants {
			for name, k := range t.keys {
				if k.jobs[job.Parked] == 0 {
					continue
				}
				if room := q.room(name, k); room > 0 && !yield(Key{t.name, name}, room) {
					return
				}
			}
		}
	}
}
