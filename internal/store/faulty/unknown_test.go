package faulty

import (
	"errors"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// newLosing makes a store that fails its next commit at the step, and returns the stores that
// receive its batches: the wrapped one and its copy.
func newLosing(at Step) (s *Store, in, copied *inner) {
	in, copied = &inner{}, &inner{}
	s = New(in, Plan{Copy: func() (store.Store, error) { return copied, nil }})
	s.Next(Fault{Step: at})
	return s, in, copied
}

func mustApply(t *testing.T, s *Store, b *store.Batch) (synced func() error) {
	t.Helper()
	synced, err := s.Apply(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return synced
}

func TestLostSyncLosesLaterSyncs(t *testing.T) {
	t.Parallel()
	s, in, copied := newLosing(SyncLostBeforeCommit)
	first, second := finish(), finish()
	one, two := mustApply(t, s, first), mustApply(t, s, second)
	if err := one(); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("the first sync returned %v", err)
	}
	if err := two(); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("the sync of the later batch returned %v", err)
	}
	if in.applied != 0 || copied.applied != 2 {
		t.Errorf("%d were applied, and %d to a copy", in.applied, copied.applied)
	}
	for _, b := range []*store.Batch{first, second, finish()} {
		if err := mustApply(t, s, b)(); err != nil {
			t.Errorf("a batch that is applied after all returned %v", err)
		}
	}
	if in.applied != 3 || s.OutOfOrder() != 0 {
		t.Errorf("%d were applied after all, %d out of order", in.applied, s.OutOfOrder())
	}
}

func TestUnknownBatchesComeFirstInOrder(t *testing.T) {
	t.Parallel()
	s, _, _ := newLosing(SyncLostAfterCommit)
	first, second := finish(), finish()
	mustApply(t, s, first)
	mustApply(t, s, second)
	mustApply(t, s, first)
	if _, err := s.Apply(t.Context(), finish()); !errors.Is(err, store.ErrNotCommitted) || s.OutOfOrder() != 1 {
		t.Errorf("a new batch returned %v, %d out of order", err, s.OutOfOrder())
	}
	mustApply(t, s, second)
	mustApply(t, s, finish())
	if s.OutOfOrder() != 1 {
		t.Errorf("%d batches were out of order", s.OutOfOrder())
	}
}

func TestSyncMayBeLostTwice(t *testing.T) {
	t.Parallel()
	s, in, copied := newLosing(SyncLostBeforeCommit)
	first, second := finish(), finish()
	mustApply(t, s, first)
	mustApply(t, s, second)
	s.Next(Fault{Step: SyncLostBeforeCommit})
	one, two := mustApply(t, s, first), mustApply(t, s, second)
	if one() == nil || two() == nil || in.applied != 0 || copied.applied != 4 {
		t.Errorf("of syncs lost again %d were applied, and %d to a copy", in.applied, copied.applied)
	}
	for _, b := range []*store.Batch{first, second} {
		if err := mustApply(t, s, b)(); err != nil {
			t.Error(err)
		}
	}
	if in.applied != 2 || s.OutOfOrder() != 0 {
		t.Errorf("%d were applied after all, %d out of order", in.applied, s.OutOfOrder())
	}
}
