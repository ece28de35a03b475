package engine

import (
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// mostRefused is how long a sweep waits at most before it tries again to end an attempt
// whose end the store cannot take.
const maxFinishRetry = time.Hour

// refusedEnds are the attempts whose end the store could not take. The sweep tries them again
// after a pause that doubles: each try holds up its whole batch, which is committed in halves.
type rejectedFinishes map[job.Lease]*finishRetry

type finishRetry struct {
	pause time.Duration
	again time.Time
}

// add notes that the end of an attempt was refused, and says whether for the first time.
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

// without leaves out of a list the attempts that are to be tried later.
func (r rejectedFinishes) without(list []store.Running) []store.Running {
	if len(r) == 0 {
		return list
	}
	now := time.Now()
	for l, f := range r {
		if now.Sub(f.again) > maxFinishRetry { // it is over: the sweep did not find it since
			delete(r, l)
		}
	}
	return slices.DeleteFunc(list, func(h store.Running) bool {
		f := r[job.Lease{Job: h.Job.ID, Token: h.Token}]
		return f != nil && f.again.After(now)
	})
}
