package engine

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// HasIdempotencyKey says whether an idempotency key has made a job: a submit that carries it is
// answered even when there is no [Engine.CheckCapacity].
func (e *Engine) HasIdempotencyKey(ctx context.Context, owner job.Owner, key string) bool {
	_, _, err := e.store.Idempotent(ctx, owner, key)
	return err == nil
}

// known answers a submit that was not admitted: with the job that its idempotency
// key made, if it did, for that is no new work; else with the refusal.
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
	if job.CodeOf(err) == job.NotFound { // deleted since, and its key with it
		return nil, false, refusal
	}
	return &j, true, err
}
