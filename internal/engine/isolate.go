package engine

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// isolate commits the halves of a batch that contains bad data, recursively, until the bad op is
// alone and is refused. Each half is on disk before the next is applied, because a store
// remembers only a few batches that are not on disk. On a full disk halves wait for space until
// the given time, and all later ops wait too.
func (e *Engine) isolate(ctx context.Context, b *store.Batch, cause error, until time.Time) (func() error, error) {
	if b.Len() == 1 || isOneGroup(b) {
		refuseOps(b, job.Wrapf(job.Invalid, cause, "the store cannot take this data"))
		return nothingToSync, nil
	}
	if until.IsZero() {
		until = time.Now().Add(fullDiskWait)
	}
	first, second := halves(b)
	applied, err := e.applyDurably(ctx, first, until)
	if !applied { // nothing of the batch was applied
		return nil, err
	}
	if err == nil {
		second.Room = roomLeft(first)
		applied, err = e.applyDurably(ctx, second, until)
		if err == nil {
			joinAnswers(b, first, second)
			return nothingToSync, nil
		}
	} else if part, ok := errors.AsType[*partialError](err); ok {
		applied, err = false, part.err
	} else {
		return func() error { return err }, nil // the sync failed, so nothing of it can be trusted
	}
	// The first half is on disk: its answers are valid even if the second half fails.
	if errors.Is(err, store.ErrFull) {
		refuseOps(second, noSpace(err))
		joinAnswers(b, first, &store.Batch{})
		return nothingToSync, nil
	}
	// The second half failed in part. Its last ops have their refusals already.
	if part, ok := errors.AsType[*partialError](err); ok {
		joinAnswers(b, first, second)
		return func() error { return part }, nil
	}
	if applied { // the second half was applied, but its sync failed
		err = e.syncFailure(err)
	}
	refuseOps(second, err)
	joinAnswers(b, first, &store.Batch{})
	part := &partialError{err}
	return func() error { return part }, nil
}

// applyDurably applies a part of a batch and waits until it is on disk. If it returns false,
// nothing of the part was applied.
func (e *Engine) applyDurably(ctx context.Context, b *store.Batch, until time.Time) (applied bool, err error) {
	t, pause := applyOptions{certain: true, until: until}, minBackoff
	for began := time.Now(); ; {
		synced, err := e.apply(ctx, b, t)
		if errors.Is(err, store.ErrFull) && ctx.Err() == nil && time.Now().Before(until) {
			time.Sleep(fullDiskPause)
			continue
		}
		if err != nil {
			return false, err
		}
		if err = synced(); !errors.Is(err, store.ErrUnknown) {
			return true, err
		}
		e.markStoreFailing()
		if ctx.Err() != nil && time.Since(began) > stopTimeout {
			return false, e.giveUpInDoubt(err)
		}
		time.Sleep(pause)
		e.awaitOutcomes(ctx)
		t.certain, pause = false, min(2*pause, maxBackoff)
	}
}

// partialError is the error of the last ops of a batch, which have their refusals. The ops
// before them are on disk.
type partialError struct{ err error }

func (p *partialError) Error() string { return p.err.Error() }

func (p *partialError) Unwrap() error { return p.err }

// halves splits a batch into two batches that are committed one after the other. The first half
// has the earlier kinds of ops, so the order of application does not change.
func halves(b *store.Batch) (first, second *store.Batch) {
	first, second = store.NewBatch(), store.NewBatch()
	first.Limits, second.Limits = b.Limits, b.Limits
	first.Room, second.Room = b.Room, b.Room
	left := b.Len() / 2 // number of ops that the first half still takes
	split(b.Pauses, &first.Pauses, &second.Pauses, &left)
	split(b.Renews, &first.Renews, &second.Renews, &left)
	split(b.Presences, &first.Presences, &second.Presences, &left)
	split(b.Appends, &first.Appends, &second.Appends, &left)
	split(b.Finishes, &first.Finishes, &second.Finishes, &left)
	split(b.Cancels, &first.Cancels, &second.Cancels, &left)
	split(b.Deletes, &first.Deletes, &second.Deletes, &left)
	split(b.Retries, &first.Retries, &second.Retries, &left)
	split(b.Writes, &first.Writes, &second.Writes, &left)
	left = alignToGroups(b.Submits, left)
	split(b.Submits, &first.Submits, &second.Submits, &left)
	split(b.Dues, &first.Dues, &second.Dues, &left)
	split(b.Prunes, &first.Prunes, &second.Prunes, &left)
	split(b.Claims, &first.Claims, &second.Claims, &left)
	return first, second
}

// roomLeft returns the room of an applied batch without what its claims have taken.
func roomLeft(b *store.Batch) map[string]int {
	left := fairqueue.Room(maps.Clone(b.Room))
	for _, c := range b.Claims {
		for i := range c.Claimed {
			left.Take(c.Claimed[i].Job.Resource)
		}
	}
	return left
}

// split divides the ops of one kind between the halves.
func split[Op any](ops []*Op, first, second *[]*Op, left *int) {
	n := min(*left, len(ops))
	*left -= n
	*first, *second = ops[:n:n], ops[n:]
}

// alignToGroups changes the number of ops for the first half so that no atomic group of submits
// is split.
func alignToGroups(ops []*store.Submit, left int) int {
	n := min(left, len(ops))
	for n > 0 && sameGroup(ops, n) {
		n--
	}
	if n == 0 && left > 0 && len(ops) > 0 {
		for n = 1; sameGroup(ops, n); {
			n++
		}
	}
	if n < min(left, len(ops)) || n > left {
		return n
	}
	return left
}

// sameGroup reports whether ops n-1 and n belong to one group.
func sameGroup(ops []*store.Submit, n int) bool {
	return n < len(ops) && ops[n].Group != nil && ops[n].Group == ops[n-1].Group
}

// isOneGroup reports whether a batch is a single group of submits, which cannot be split.
func isOneGroup(b *store.Batch) bool {
	return len(b.Submits) == b.Len() && b.Submits[0].Group != nil && b.Submits[0].Group.Size == b.Len()
}

// joinAnswers sets the answers of a batch from those of its halves.
func joinAnswers(b, first, second *store.Batch) {
	b.Counts = map[string]job.Counts{}
	maps.Copy(b.Counts, first.Counts)
	maps.Copy(b.Counts, second.Counts)
	b.Moved = append(first.Moved, second.Moved...)
	b.FollowUps = append(first.FollowUps, second.FollowUps...)
	b.Removed = append(first.Removed, second.Removed...)
	b.Damaged = append(first.Damaged, second.Damaged...)
}

// refuseOps sets the same refusal on every op of a batch.
func refuseOps(b *store.Batch, err error) {
	for _, op := range b.Pauses {
		op.Err = err
	}
	for _, op := range b.Renews {
		op.Err = err
	}
	for _, op := range b.Presences {
		op.Err = err
	}
	for _, op := range b.Appends {
		op.Err = err
	}
	for _, op := range b.Finishes {
		op.Err = err
	}
	for _, op := range b.Cancels {
		op.Err = err
	}
	for _, op := range b.Deletes {
		op.Err = err
	}
	for _, op := range b.Retries {
		op.Err = err
	}
	for _, op := range b.Writes {
		op.Err = err
	}
	for _, op := range b.Submits {
		op.Err = err
	}
	for _, op := range b.Dues {
		op.Err = err
	}
	for _, op := range b.Prunes {
		op.Err = err
	}
	for _, op := range b.Claims {
		op.Err, op.Claimed = err, nil
	}
}
