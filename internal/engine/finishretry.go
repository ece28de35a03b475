package engine

import (
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// maxFinishRetry is the maximum pause before a sweep retries a finish that the store refused for
// bad data.
const maxFinishRetry = time.Hour

// rejectedFinishes are the attempts whose finishes the store refused for bad data. The sweep
// retries each after a pause that doubles, because for each retry the loop has to commit a whole
// batch in halves.
type rejectedFinishes map[job.Lease]*finishRetry

type finishRetry struct {
	pause time.Duration
	again time.Time
}

// add records that a finish was refused, and reports whether it is the first refusal.
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

// withoutPaused removes the attempts whose retry is not due yet.
func (r rejectedFinishes) withoutPaused(list []store.Running) []store.Running {
	if len(r) == 0 {
		return list
	}
	now := time.Now()
	for l, f := range r {
		// No sweep has found the attempt for an hour, so it has ended.
		if now.Sub(f.again) > maxFinishRetry {
			delete(r, l)
		}
	}
	return slices.DeleteFunc(list, func(h store.Running) bool {
		f := r[job.Lease{Job: h.Job.ID, Token: h.Token}]
		return f != nil && f.again.After(now)
	})
}
