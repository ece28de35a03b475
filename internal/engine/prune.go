package engine

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	// pruneEvery is the pause between two passes over the jobs past their time, and
	// wholeEvery between two that begin with the oldest job: those that were kept by
	// the pass before, as failed jobs are for a week, are not looked at each time.
	pruneEvery    = 30 * time.Second
	fullPassEvery = 10 * time.Minute
	// sizeEvery is how often a store with a bound is asked for its size; fullEvery when
	// there was nothing left that could be deleted.
	sizeEvery      = 5 * time.Second
	exhaustedEvery = time.Minute

	// A piece is small enough that a commit is hardly slower for it.
	pieceRows  = 500
	pieceBytes = 4 << 20
	pieceTime  = 2 * time.Millisecond
	// After a piece the loop has so many times as long for others: less when the store
	// holds more than it may.
	yieldFactor     = 32
	yieldFactorFull = 3
)

// pruner deletes ended jobs: those past their time, and, when the store holds more
// than it may, the oldest before it. It works in small pieces in the loop's last
// lane, and leaves most of the time to others.
type pruner struct {
	// Set once.
	e         *Engine
	maxBytes  int64                                // bytes; 0 for no bound
	fileBytes func(context.Context) (int64, error) // nil when jobs have no files

	// Owned by run.
	passStart   string    // where the next pass begins
	fullPassAt  time.Time // when a pass last began with the oldest job
	exhaustedAt time.Time // when all that could be deleted was, and the store still held too much
}

func newPruner(e *Engine, most int64) *pruner { return &pruner{e: e, maxBytes: most} }

// run deletes now and again until ctx ends. It is a duty of its own, so that a
// long pass holds up nothing that is due. What fails is logged, and done by the
// next pass.
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

// pass deletes the jobs past their time. It begins where the last one ended, or
// now and then with the oldest, and stops where jobs are too young to be over.
func (p *pruner) pass(ctx context.Context) error {
	if now := time.Now(); now.Sub(p.fullPassAt) >= fullPassEvery {
		p.passStart, p.fullPassAt = "", now
	}
	total := 0
	for {
		op := &store.Prune{After: p.passStart, Limit: pieceRows, MaxBytes: pieceBytes, MaxTime: pieceTime}
		if err := p.piece(ctx, op); err != nil {
			return err
		}
		total += op.Deleted
		young := op.Next == "" || p.e.store.Now().Sub(op.LookedUntil) < p.e.minKeep()
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
		p.e.log.Info("deleted the jobs past their time", "jobs", total)
	}
	return nil
}

// size is how much the store and the files of jobs hold. Files that are being removed
// are waited for: what they held is no reason to delete more.
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

// shrink deletes the oldest ended jobs before their time when there is more of them
// than may be, until there is nine tenths of that.
func (p *pruner) shrink(ctx context.Context) error {
	if p.maxBytes == 0 || time.Since(p.exhaustedAt) < exhaustedEvery {
		return nil
	}
	size, err := p.size(ctx)
	if err != nil || size <= p.maxBytes {
		return err
	}
	before, total, after := size, 0, ""
	for enough := p.maxBytes / 10 * 9; size > enough; {
		op := &store.Prune{After: after, Limit: pieceRows, MaxBytes: min(pieceBytes, size-enough), MaxTime: pieceTime, Early: true}
		if err := p.piece(ctx, op); err != nil {
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
	p.logShrink(before, size, total)
	return nil
}

// tell says what a shrink came to.
func (p *pruner) logShrink(before, after int64, jobs int) {
	p.e.log.Warn("there was more than may be: the oldest ended jobs were deleted before their time",
		"jobs", jobs, "bytes", before, "now", after, "most", p.maxBytes)
	if after > p.maxBytes {
		p.exhaustedAt = time.Now()
		p.e.log.Warn("there is still more than may be: what is left is unfinished work and conversations", "bytes", after, "most", p.maxBytes)
	}
}

// piece puts one piece through the loop.
func (p *pruner) piece(ctx context.Context, op *store.Prune) error {
	if err := p.e.do(ctx, &pendingOp{lane: laneUpkeep, bytes: opBytes, op: op}); err != nil {
		return err
	}
	return op.Err
}

// rest leaves the loop to others.
func (p *pruner) yield(ctx context.Context, times time.Duration) error {
	pause := time.NewTimer(times * pieceTime)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pause.C:
		return nil
	}
}

// shortestKeep is the shortest time that any ended job is kept.
func (e *Engine) minKeep() time.Duration {
	shortest := 24 * time.Hour
	for _, q := range e.queues {
		shortest = min(shortest, q.Keep, q.KeepFailed)
	}
	return shortest
}
