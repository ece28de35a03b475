package engine

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	// pruneEvery is the interval of passes over the jobs past their retention. fullPassEvery is
	// the interval of passes that begin with the oldest job. The other passes continue where the
	// last one ended, so that they do not read jobs with a long retention, such as failed ones,
	// each time.
	pruneEvery    = 30 * time.Second
	fullPassEvery = 10 * time.Minute
	// sizeEvery is how often the size of a bounded store is checked. It is exhaustedEvery after
	// a check that found no job to delete.
	sizeEvery      = 5 * time.Second
	exhaustedEvery = time.Minute

	// The bounds of one op, so small that its commit is hardly slower than others.
	chunkRows  = 500
	chunkBytes = 4 << 20
	chunkTime  = 2 * time.Millisecond
	// After each op the pruner pauses for chunkTime times this factor, so that other ops get
	// most of the loop's time. The pause is shorter while the store is above its bound.
	yieldFactor     = 32
	yieldFactorFull = 3
)

// pruner deletes ended jobs: those past their retention and, while the store is above its bound,
// the oldest other ones. It works in small chunks in the last lane and leaves most of the loop's
// time to other ops.
type pruner struct {
	// Set once.
	e         *Engine
	maxBytes  int64                                // the bound of the store; 0 for none
	fileBytes func(context.Context) (int64, error) // nil if jobs have no files

	// Owned by run.
	passStart   string    // where the next pass begins
	fullPassAt  time.Time // when the last full pass began
	exhaustedAt time.Time // when no job was left to delete although the store was above its bound
}

func newPruner(e *Engine, maxBytes int64) *pruner { return &pruner{e: e, maxBytes: maxBytes} }

// run deletes jobs at intervals until ctx ends. It has its own goroutine, so that a long pass
// does not delay the sweep. It logs errors; the next pass retries.
func (p *pruner) run(ctx context.Context) {
	pass, size := time.NewTicker(pruneEvery), time.NewTicker(sizeEvery)
	defer pass.Stop()
	defer size.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-pass.C:
			err = p.pass(ctx)
		case <-size.C:
			err = p.shrink(ctx)
		}
		if err != nil && ctx.Err() == nil {
			p.e.log.Error("deleting old jobs failed and will be repeated", "error", err)
		}
	}
}

// pass deletes the jobs past their retention. It begins where the last pass ended, or, every
// fullPassEvery, with the oldest job. It stops at jobs that are too young.
func (p *pruner) pass(ctx context.Context) error {
	if now := time.Now(); now.Sub(p.fullPassAt) >= fullPassEvery {
		p.passStart, p.fullPassAt = "", now
	}
	total := 0
	for {
		op := &store.Prune{After: p.passStart, Limit: chunkRows, MaxBytes: chunkBytes, MaxTime: chunkTime}
		if err := p.pruneChunk(ctx, op); err != nil {
			return err
		}
		total += op.Deleted
		// From here on jobs are too young for any retention to be over. Do not move the cursor
		// there, because the next pass must read them again.
		young := op.Next == "" || p.e.store.Now().Sub(op.ReadUntil) < p.e.minKeep()
		if young && !op.More {
			break
		}
		if !young {
			p.passStart = op.Next
		}
		if err := p.yield(ctx, yieldFactor); err != nil {
			return err
		}
	}
	if total > 0 {
		p.e.log.Info("deleted the jobs past their retention", "jobs", total)
	}
	return nil
}

// size returns the size of the store and of the jobs' files. It first waits for files that are
// being removed, so that their size causes no further deletes.
func (p *pruner) size(ctx context.Context) (int64, error) {
	size, err := p.e.store.Size(ctx)
	if err != nil || p.fileBytes == nil {
		return size, err
	}
	if err := p.e.fileRemover.wait(ctx); err != nil {
		return 0, err
	}
	files, err := p.fileBytes(ctx)
	return size + files, err
}

// shrink deletes the oldest ended jobs before their retention is over, if the store is above its
// bound, until its size is nine tenths of the bound.
func (p *pruner) shrink(ctx context.Context) error {
	if p.maxBytes == 0 || time.Since(p.exhaustedAt) < exhaustedEvery {
		return nil
	}
	size, err := p.size(ctx)
	if err != nil || size <= p.maxBytes {
		return err
	}
	// Nine tenths, so that the next few jobs do not start it again.
	before, total, after := size, 0, ""
	for enough := p.maxBytes / 10 * 9; size > enough; {
		op := &store.Prune{After: after, Limit: chunkRows, MaxBytes: min(chunkBytes, size-enough), MaxTime: chunkTime, Early: true}
		if err := p.pruneChunk(ctx, op); err != nil {
			return err
		}
		total, after = total+op.Deleted, op.Next
		if size, err = p.size(ctx); err != nil {
			return err
		}
		if after == "" {
			break
		}
		if err := p.yield(ctx, yieldFactorFull); err != nil {
			return err
		}
	}
	kept, err := p.e.store.Kept(ctx)
	p.logShrink(before, size, total, &kept)
	return err
}

// logShrink logs what was deleted and why. Conversations are never deleted early, so jobs of
// everybody make room for them: the log says whose they are.
func (p *pruner) logShrink(before, after int64, jobs int, kept *store.Kept) {
	sizes := []any{"jobs", jobs, "bytes", before, "now", after, "max", p.maxBytes,
		"conversations", kept.Bytes, "most_of", kept.Most.User, "tenant", kept.Most.Tenant, "conversations_of_one", kept.MostBytes}
	p.e.log.Warn("the store was above its bound: the oldest ended jobs were deleted before their retention was over", sizes...)
	if kept.Bytes > p.maxBytes/2 {
		p.e.log.Warn("conversations and records of deleted jobs take more than half of the store, so jobs are deleted for them", sizes...)
	}
	if after > p.maxBytes {
		p.exhaustedAt = time.Now()
		p.e.log.Warn("the store is still above its bound: only unfinished jobs and conversations are left", sizes...)
	}
}

// pruneChunk commits one op through the loop.
func (p *pruner) pruneChunk(ctx context.Context, op *store.Prune) error {
	if err := p.e.do(ctx, &pendingOp{lane: laneUpkeep, bytes: opBytes, op: op}); err != nil {
		return err
	}
	return op.Err
}

// yield pauses for factor times chunkTime, so that the loop serves other ops.
func (p *pruner) yield(ctx context.Context, factor time.Duration) error {
	pause := time.NewTimer(factor * chunkTime)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pause.C:
		return nil
	}
}

// minKeep returns the shortest retention of any queue.
func (e *Engine) minKeep() time.Duration {
	shortest := 24 * time.Hour
	for _, q := range e.queues {
		shortest = min(shortest, q.Keep, q.KeepFailed)
	}
	return shortest
}
