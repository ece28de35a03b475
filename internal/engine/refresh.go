package engine

import (
	"context"
	"math/rand/v2"
	"time"
)

// refreshWithin is the maximum time between two reads of changes by other processes: a change
// without a notice is detected, and handled, within a second. Each interval is up to a half
// shorter, so that processes do not read at the same moment.
const refreshWithin = 900 * time.Millisecond

// runRefresh reads changes by other processes until ctx ends, for the case that their notices
// were lost: the counts of all queues, and when the next job is due. It only reads: an idle
// server commits nothing.
func (e *Engine) runRefresh(ctx context.Context) {
	timer := time.NewTimer(jittered(refreshWithin))
	defer timer.Stop()
	failing := repeatedError{log: e.log, what: "the counts of the queues and the next due time cannot be read"}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := e.refresh(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			e.sweeper.markUnhealthy() // workers could not renew meanwhile either
		} else {
			e.refreshedAt.Store(int64(time.Since(e.startedAt)))
		}
		failing.report(err)
		timer.Reset(jittered(refreshWithin))
	}
}

// jittered returns a random duration between d/2 and d.
func jittered(d time.Duration) time.Duration { return d/2 + time.Duration(rand.Float64()*float64(d/2)) }

// refresh reads the counts of all queues and the next due time.
func (e *Engine) refresh(ctx context.Context) error {
	before := make(map[*queue]int, len(e.queues))
	for _, q := range e.queues {
		q.mu.Lock()
		before[q] = q.commits
		q.mu.Unlock()
	}
	counts, err := e.store.Counts(ctx)
	if err != nil {
		return err
	}
	for name, q := range e.queues {
		q.mu.Lock()
		if q.commits == before[q] { // a commit since then has newer counts
			q.counts = counts[name]
			q.claimFellShort = false
		}
		q.mu.Unlock()
	}
	if e.needsClaim() {
		e.lanes.signal()
	}
	return e.sweeper.readNext(ctx)
}
