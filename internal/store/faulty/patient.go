package faulty

import (
	"context"
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Patient is a store that commits every batch again until its outcome is known, as
// the engine does. Bad data and a full disk are left to the caller.
func Patient(s store.Store) store.Store { return patient{s} }

type patient struct{ store.Store }

// mostTries bounds the patience: a store that fails so often in a row is broken.
const mostTries = 1000

func (p patient) Apply(ctx context.Context, b *store.Batch) (synced func() error, err error) {
	for range mostTries {
		synced, err = p.Store.Apply(ctx, b)
		if err == nil || errors.Is(err, store.ErrData) || errors.Is(err, store.ErrFull) || ctx.Err() != nil {
			return synced, err
		}
	}
	return nil, err
}
