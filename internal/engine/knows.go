package engine

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Knows says whether an idempotency key has made a job: a submit that carries it is
// answered even when there is no [Engine.Room].
func (e *Engine) Knows(ctx context.Context, owner job.Owner, key string) bool {
	_, _, err := e.store.Idempotent(ctx, owner, key)
	return err == nil
}
