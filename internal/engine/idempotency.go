package engine

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// HasIdempotencyKey reports whether a job exists for an idempotency key. A submit with such a
// key is answered even when [Engine.CheckCapacity] refuses new work.
func (e *Engine) HasIdempotencyKey(ctx context.Context, owner job.Owner, key string) bool {
	_, _, err := e.store.Idempotent(ctx, owner, key)
	return err == nil
}

// resolveByKey answers a submit that was not admitted. It returns the job of its idempotency
// key, which is no new work, or else the refusal.
func (e *Engine) resolveByKey(ctx context.Context, op *store.Submit, refusal error) (*job.Job, bool, error) {
	if op.Idempotency == nil {
		return nil, false, refusal
	}
	owner := op.Job.Owner
	id, hash, err := e.store.Idempotent(ctx, owner, op.Idempotency.Key)
	if err != nil {
		return nil, false, refusal
	}
	if hash != op.Idempotency.Hash {
		return nil, false, job.Errorf(job.IdempotencyMismatch, "this idempotency key was used before, for another request")
	}
	j, err := e.store.Job(ctx, owner, id)
	if job.CodeOf(err) == job.NotFound { // deleted meanwhile, together with its key
		return nil, false, refusal
	}
	return &j, true, err
}
