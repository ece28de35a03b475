package engine

import (
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// maxFinishRetry bounds the pause before a sweep tries again to end an attempt whose finish has
// bad data.
const maxFinishRetry = time.Hour

// rejectedFinishes are the attempts whose finishes the store refused for bad data. The sweep
// retries each after a pause that doubles, because each try makes the loop commit a whole batch
// in halves.
type rejectedFinishes map[job.Lease]*finishRetry

type finishRetry struct {
	pause time.Duration
	again time.Time
}

// add notes that a finish was refused, and reports whether for the first time.
func (r rejectedFinishes) add(l job.Lease) (first bool) {
	f := r[l]
	if f == nil {
		f = &finishRetry{pause: sweepEvery / 2}
		r[l] = f
		first = true
	}
	f.pause = min(2*f.pause, maxFinishRetry)
	f.again = time.Now().Add(f.pause)
	return first
}

// without removes from a list the attempts that are to be retried later.
func (r rejectedFinishes) without(list []store.Running) []store.Running {
	if len(r) == 0 {
		return list
	}
	now := time.Now()
	for l, f := range r {
		// The sweep has not found it for an hour: the attempt has ended.
		if now.Sub(f.again) > maxFinishRetry {
			delete(r, l)
		}
	}
	return slices.DeleteFunc(list, func(h store.Running) bool {
		f := r[job.Lease{Job: h.Job.ID, Token: h.Token}]
		return f != nil && f.again.After(now)
	})
}
