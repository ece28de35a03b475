package engine

import (
	"context"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// reclaimDead ends the attempts of dead processes. New calls it first.
func (e *Engine) reclaimDead(ctx context.Context, alone bool, dead []job.Process) error {
	if alone {
		return e.reclaim(ctx, func(after job.ID) ([]store.Running, error) {
			return e.store.Running(ctx, store.AllRunning, after, sweepLimit)
		})
	}
	for _, p := range dead {
		err := e.reclaim(ctx, func(after job.ID) ([]store.Running, error) {
			return e.store.RunningOf(ctx, p, after, sweepLimit)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// reclaim ends the attempts of the running jobs that next lists page by page.
func (e *Engine) reclaim(ctx context.Context, next func(after job.ID) ([]store.Running, error)) error {
	var after job.ID
	total := 0
	for {
		list, err := next(after)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		b := store.NewBatch()
		b.Limits = *e.limits.Load()
		for i := range list {
			after = list[i].Job.ID
			b.Finishes = append(b.Finishes, e.sweepFinish(&list[i], store.AllRunning))
		}
		if err := e.commitBeforeLoop(ctx, b); err != nil {
			return err
		}
		for i, op := range b.Finishes {
			if op.Err == nil {
				e.observer.AttemptEnded(list[i].Job.Queue, endingOf(op, true), 0)
				e.failures.report(op, &list[i].Job, nil) // Run writes it
			}
		}
		e.fileRemover.add(b.Removed) // Run deletes them
		e.reportDamaged(b.Damaged)
		total += len(list)
	}
	if total > 0 {
		e.log.Info("took back the running jobs of a dead server", "jobs", total)
	}
	return nil
}

// commitBeforeLoop commits a batch before the loop runs. If the outcome is unknown, it retries
// for a while. Like the loop, it refuses only the op with bad data: that job keeps its lease.
func (e *Engine) commitBeforeLoop(ctx context.Context, b *store.Batch) error {
	for began := time.Now(); ; time.Sleep(minBackoff) {
		synced, err := e.store.Apply(ctx, b)
		unknown := !errors.Is(err, store.ErrNotCommitted) && !errors.Is(err, store.ErrDamaged)
		if err == nil {
			err = synced()
			unknown = errors.Is(err, store.ErrUnknown)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, store.ErrData) && b.Len() == 1:
			e.log.Error("a running job of a dead server cannot be taken back: its lease decides", "job", b.Finishes[0].Lease.Job, "error", err)
			refuseOps(b, job.Wrapf(job.Invalid, err, "the store cannot take this data"))
			return nil
		case errors.Is(err, store.ErrData):
			first, second := halves(b)
			if err := e.commitBeforeLoop(ctx, first); err != nil {
				return err
			}
			err := e.commitBeforeLoop(ctx, second)
			joinAnswers(b, first, second)
			return err
		case !unknown || ctx.Err() != nil || time.Since(began) > stopTimeout:
			return err
		}
	}
}
