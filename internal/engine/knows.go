package engine

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// HasIdempotencyKey says whether an idempotency key has made a job: a submit that carries it is
// answered even when there is no [Engine.CheckCapacity].
func (e *Engine) HasIdempotencyKey(ctx context.Context, owner job.Owner, key string) bool {
	_, _, err := e.store.Idempotent(ctx, owner, key)
	return err == nil
}
