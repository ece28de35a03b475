package faulty

import (
	"context"
	"errors"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Patient is a store that commits every batch again until its outcome is known, as
// the engine does, and all that were applied behind it. Bad data and a full disk are left
// to the caller.
func Patient(s store.Store) store.Store { return &patient{Store: s} }

type patient struct {
	store.Store

	mu sync.Mutex
	// Guarded by mu.
	unsynced []*unsynced // in the order in which they were applied
}

// unsynced is a batch of which nobody knows yet that it is on disk.
type unsynced struct {
	batch  *store.Batch
	synced func() error
	done   bool
	err    error // when it is done
}

// mostTries bounds the patience: a store that fails so often in a row is broken.
const mostTries = 1000

func (p *patient) Apply(ctx context.Context, b *store.Batch) (synced func() error, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := &unsynced{batch: b}
	if u.synced, err = p.Store.Apply(ctx, b); p.again(ctx, err) {
		p.settle(ctx) // what was before it comes first
		u.synced, err = p.insist(ctx, b)
	}
	if err != nil {
		return nil, err
	}
	p.unsynced = append(p.unsynced, u)
	if len(p.unsynced) == store.MostUnsynced {
		p.settle(ctx)
	}
	return func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !u.done {
			p.settle(context.WithoutCancel(ctx))
		}
		return u.err
	}, nil
}

// again says whether a commit that came to err is to be made again.
func (p *patient) again(ctx context.Context, err error) bool {
	return err != nil && !errors.Is(err, store.ErrData) && !errors.Is(err, store.ErrFull) && ctx.Err() == nil
}

func (p *patient) insist(ctx context.Context, b *store.Batch) (synced func() error, err error) {
	for range mostTries {
		if synced, err = p.Store.Apply(ctx, b); !p.again(ctx, err) {
			return synced, err
		}
	}
	return nil, err
}

// settle finds out what became of all that was applied. The caller holds mu.
func (p *patient) settle(ctx context.Context) {
	for try := 0; len(p.unsynced) > 0; try++ {
		u := p.unsynced[0]
		err := u.synced()
		if !errors.Is(err, store.ErrUnknown) || try == mostTries {
			u.done, u.err = true, err
			p.unsynced = p.unsynced[1:]
			continue
		}
		for _, u := range p.unsynced {
			var err error
			if u.synced, err = p.insist(ctx, u.batch); err != nil {
				u.synced = func() error { return err }
			}
		}
	}
}
