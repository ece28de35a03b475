package faulty

import (
	"errors"
	"fmt"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// unknownBatches are the batches whose syncs were lost: the caller does not know whether they
// are stored. Store.mu guards it.
type unknownBatches struct {
	// batches lists them in order. The caller must apply all of them again.
	batches []*store.Batch
	// applied is how many of them were applied again since the last loss. 0 means that the next
	// batch must be the first of them.
	applied int
	// copy has the batches that will not be stored in the end; nil while there are none.
	copy store.Store
	// halved is true when a batch was refused. The caller may then apply its parts instead.
	halved     bool
	added      store.BatchID // the batch that the last call appended to batches
	known      store.BatchID // the last batch that was certainly applied
	outOfOrder int
}

// OutOfOrder is how often a caller applied another batch before all unknown ones.
func (s *Store) OutOfOrder() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unknown.outOfOrder
}

// chooseStore returns the store for a batch (the wrapped one, or the copy when the batch will not
// be stored in the end), and whether its sync will be lost.
func (s *Store) chooseStore(b *store.Batch, at Step) (in store.Store, lost bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &s.unknown
	if b.ID == d.known && at == SyncLostBeforeCommit {
		at = SyncLostAfterCommit // it is stored already, so the sync can only be lost after the commit
	}
	starts := at == SyncLostAfterCommit || at == SyncLostBeforeCommit
	if len(d.batches) == 0 && !starts {
		if at == None {
			d.known = b.ID
		}
		return s.inner, false, nil
	}
	if len(d.batches) > 0 && b.ID == d.batches[0].ID { // the caller starts again with the first
		d.applied = 0
		if err := d.dropCopy(); err != nil {
			return nil, false, err
		}
	}
	switch {
	case d.applied < len(d.batches) && b.ID != d.batches[d.applied].ID:
		if d.halved {
			return s.inner, false, nil
		}
		d.outOfOrder++
		return nil, false, fmt.Errorf("faulty: the outcome of other batches is unknown: %w", store.ErrNotCommitted)
	case at == BeforeCommit || at == LostBeforeCommit || at == DiskFull: // the batch fails in any store
		return s.inner, false, nil
	case d.applied == 0 && !starts:
		if at != LostAfterCommit { // its outcome is known from now on
			d.batches, d.halved, d.known = d.batches[1:], false, b.ID
		}
		return s.inner, false, nil
	case d.applied > 0 && !starts && s.random.IntN(2) == 0: // a batch after one whose sync is lost
		at = SyncLostBeforeCommit
	}
	if d.applied == len(d.batches) {
		d.batches, d.added = append(d.batches, b), b.ID
	} else {
		d.added = store.BatchID{}
	}
	d.applied, d.halved = d.applied+1, false
	if at == SyncLostBeforeCommit && d.copy == nil {
		if d.copy, err = s.plan.Copy(); err != nil {
			return nil, false, err
		}
	}
	if d.copy != nil { // a batch after one that is not stored is not stored either
		return d.copy, true, nil
	}
	return s.inner, true, nil
}

// mayBeApplied reports whether an earlier call may have applied the batch.
func (s *Store) mayBeApplied(b *store.Batch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return b.ID == s.lastLost || slices.ContainsFunc(s.unknown.batches, func(in *store.Batch) bool { return in.ID == b.ID })
}

// failed records that a batch was refused: its outcome is known, and the caller may apply its
// parts instead.
func (d *unknownBatches) failed(b *store.Batch, err error) error {
	data := errors.Is(err, store.ErrData) || errors.Is(err, store.ErrFull)
	at := slices.IndexFunc(d.batches, func(in *store.Batch) bool { return in.ID == b.ID })
	if data || at >= 0 && b.ID == d.added && errors.Is(err, store.ErrNotCommitted) {
		d.halved = d.halved || data
		if at >= 0 {
			d.batches = slices.Delete(d.batches, at, at+1)
		}
		if at >= 0 && at < d.applied {
			d.applied--
		}
	}
	if len(d.batches) > 0 {
		return nil
	}
	d.applied = 0
	return d.dropCopy()
}

// dropCopy closes the copy, if there is one.
func (d *unknownBatches) dropCopy() error {
	c := d.copy
	d.copy = nil
	if c == nil {
		return nil
	}
	return c.Close()
}
