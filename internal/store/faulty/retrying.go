package faulty

import (
	"context"
	"errors"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Retrying wraps a store and repeats every batch until its outcome is known, as the engine does,
// together with all batches that were applied after it. It returns store.ErrData and
// store.ErrFull to its caller.
func Retrying(s store.Store) store.Store { return &retrying{Store: s} }

type retrying struct {
	store.Store

	mu sync.Mutex
	// Guarded by mu.
	unsynced []*unsynced // in the order in which they were applied
}

// unsynced is a batch that is applied and not yet known to be on disk.
type unsynced struct {
	batch  *store.Batch
	synced func() error
	done   bool
	err    error // when it is done
}

// maxTries is the number of failures in a row after which the store counts as broken.
const maxTries = 1000

func (p *retrying) Apply(ctx context.Context, b *store.Batch) (synced func() error, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := &unsynced{batch: b}
	if u.synced, err = p.Store.Apply(ctx, b); p.mustRetry(ctx, err) {
		p.settleLocked(ctx) // the batches before it come first
		u.synced, err = p.applyAgain(ctx, b)
	}
	if err != nil {
		return nil, err
	}
	p.unsynced = append(p.unsynced, u)
	if len(p.unsynced) == store.MaxUnsynced {
		p.settleLocked(ctx)
	}
	return func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !u.done {
			p.settleLocked(context.WithoutCancel(ctx))
		}
		return u.err
	}, nil
}

// mustRetry reports whether a batch must be applied again after err.
func (p *retrying) mustRetry(ctx context.Context, err error) bool {
	return err != nil && !errors.Is(err, store.ErrData) && !errors.Is(err, store.ErrFull) && ctx.Err() == nil
}

func (p *retrying) applyAgain(ctx context.Context, b *store.Batch) (synced func() error, err error) {
	for range maxTries {
		if synced, err = p.Store.Apply(ctx, b); !p.mustRetry(ctx, err) {
			return synced, err
		}
	}
	return nil, err
}

// settleLocked waits for the syncs of all applied batches, and applies them again while they are
// unknown. The caller has locked mu.
func (p *retrying) settleLocked(ctx context.Context) {
	for try := 0; len(p.unsynced) > 0; try++ {
		u := p.unsynced[0]
		err := u.synced()
		if !errors.Is(err, store.ErrUnknown) || try == maxTries {
			u.done, u.err = true, err
			p.unsynced = p.unsynced[1:]
			continue
		}
		for _, u := range p.unsynced {
			var err error
			if u.synced, err = p.applyAgain(ctx, u.batch); err != nil {
				u.synced = func() error { return err }
			}
		}
	}
}
