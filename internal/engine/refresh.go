package engine

import (
	"context"
	"math/rand/v2"
	"time"
)

// refreshWithin is how soon the store is asked for what another process may have
// changed: what nobody told of is seen, and acted on, within a second. Each wait is up to
// a half shorter, so that processes do not ask at the same moment.
const refreshWithin = 900 * time.Millisecond

// refresher reads, until ctx ends, what other processes may have changed without a notice:
// the counts of all queues, and when the next job is due. It only reads: where nothing has
// changed nothing is committed.
func (e *Engine) runRefresh(ctx context.Context) {
	timer := time.NewTimer(jittered(refreshWithin))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if err := e.refresh(ctx); err != nil && ctx.Err() == nil {
			e.sweeper.markUnhealthy() // workers could not renew either
			e.log.Error("the counts of the queues, or what is due next, could not be read; both will be asked for again", "error", err)
		}
		timer.Reset(jittered(refreshWithin))
	}
}

// spread is a time up to d, and at least its half.
func jittered(d time.Duration) time.Duration { return d/2 + time.Duration(rand.Float64()*float64(d/2)) }

// refresh reads the counts and the next due time, whatever is known of them.
func (e *Engine) refresh(ctx context.Context) error {
	before := make(map[*queue]int, len(e.queues))
	for _, q := range e.queues {
		before[q] = q.commitsSoFar()
	}
	counts, err := e.store.Counts(ctx)
	if err != nil {
		return err
	}
	for name, q := range e.queues {
		q.mu.Lock()
		if q.commits == before[q] { // a commit since then knows better
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

func (q *queue) commitsSoFar() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.commits
}
