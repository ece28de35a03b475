package faulty

import (
	"errors"
	"fmt"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// unknownBatches is what a lost connection leaves: batches of which the caller does not know
// whether they are stored.
type unknownBatches struct {
	// batches are those in doubt, in their order. The caller applies all of them again.
	batches []*store.Batch
	// applied is how many of them were applied since the last loss, behind the one whose
	// sync fails. 0 says that the next batch has to be the first of them.
	applied int
	// copy is where those are that will not have been applied; nil while there is none.
	copy store.Store
	// halved says that a batch was refused, and may be applied in parts.
	halved     bool
	added      store.BatchID // the batch that the last call added to them
	known      store.BatchID // the last batch that was applied for certain
	outOfOrder int
}

// OutOfOrder is how often another batch came than the one in doubt whose turn it was.
func (s *Store) OutOfOrder() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unknown.outOfOrder
}

// chooseStore says which store is to apply a batch, and whether its sync will be lost.
func (s *Store) chooseStore(b *store.Batch, at Step) (in store.Store, lost bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &s.unknown
	if b.ID == d.known && at == SyncLostBeforeCommit {
		at = SyncLostAfterCommit // it is stored, whatever becomes of its sync now
	}
	starts := at == SyncLostAfterCommit || at == SyncLostBeforeCommit
	if len(d.batches) == 0 && !starts {
		if at == None {
			d.known = b.ID
		}
		return s.inner, false, nil
	}
	if len(d.batches) > 0 && b.ID == d.batches[0].ID { // again from the first
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
		return nil, false, fmt.Errorf("faulty: other batches are in doubt: %w", store.ErrNotCommitted)
	case at == BeforeCommit || at == LostBeforeCommit || at == DiskFull: // it fails all the same
		return s.inner, false, nil
	case d.applied == 0 && !starts:
		if at != LostAfterCommit { // known from now on
			d.batches, d.halved, d.known = d.batches[1:], false, b.ID
		}
		return s.inner, false, nil
	case d.applied > 0 && !starts && s.random.IntN(2) == 0: // behind one whose sync is lost
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
	if d.copy != nil { // what is behind a batch that is not applied is not, either
		return d.copy, true, nil
	}
	return s.inner, true, nil
}

// mayBeApplied says whether an earlier call may have applied a batch.
func (s *Store) mayBeApplied(b *store.Batch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return b.ID == s.lastLost || slices.ContainsFunc(s.unknown.batches, func(in *store.Batch) bool { return in.ID == b.ID })
}

// failed notes that a batch was not applied after all: it is in doubt no more, and its
// parts may come in its place.
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

// dropCopy closes the copy.
func (d *unknownBatches) dropCopy() error {
	c := d.copy
	d.copy = nil
	if c == nil {
		return nil
	}
	return c.Close()
}
