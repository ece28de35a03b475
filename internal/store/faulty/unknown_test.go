package faulty

import (
	"errors"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// losing is a store whose next sync is lost, and the stores that batches reach: the
// wrapped one, and its copies.
func losing(at Step) (s *Store, in, aside *inner) {
	in, aside = &inner{}, &inner{}
	s = New(in, Plan{Copy: func() (store.Store, error) { return aside, nil }})
	s.Next(Fault{Step: at})
	return s, in, aside
}

func applied(t *testing.T, s *Store, b *store.Batch) (synced func() error) {
	t.Helper()
	synced, err := s.Apply(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return synced
}

func TestALostSyncTakesThoseBehindAlong(t *testing.T) {
	s, in, aside := losing(SyncLostBeforeCommit)
	first, second := finish(), finish()
	one, two := applied(t, s, first), applied(t, s, second)
	if err := one(); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("the first sync returned %v", err)
	}
	if err := two(); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("the sync behind it returned %v", err)
	}
	if in.applied != 0 || aside.applied != 2 {
		t.Errorf("%d were applied, and %d to a copy", in.applied, aside.applied)
	}
	for _, b := range []*store.Batch{first, second, finish()} {
		if err := applied(t, s, b)(); err != nil {
			t.Errorf("a batch that is applied after all returned %v", err)
		}
	}
	if in.applied != 3 || s.OutOfOrder() != 0 {
		t.Errorf("%d were applied after all, %d out of order", in.applied, s.OutOfOrder())
	}
}

func TestBatchesInDoubtComeFirstAndInOrder(t *testing.T) {
	s, _, _ := losing(SyncLostAfterCommit)
	first, second := finish(), finish()
	applied(t, s, first)
	applied(t, s, second)
	applied(t, s, first)
	if _, err := s.Apply(t.Context(), finish()); !errors.Is(err, store.ErrNotCommitted) || s.OutOfOrder() != 1 {
		t.Errorf("a new batch returned %v, %d out of order", err, s.OutOfOrder())
	}
	applied(t, s, second)
	applied(t, s, finish())
	if s.OutOfOrder() != 1 {
		t.Errorf("%d batches were out of order", s.OutOfOrder())
	}
}

func TestASyncMayBeLostAgain(t *testing.T) {
	s, in, aside := losing(SyncLostBeforeCommit)
	first, second := finish(), finish()
	applied(t, s, first)
	applied(t, s, second)
	s.Next(Fault{Step: SyncLostBeforeCommit})
	one, two := applied(t, s, first), applied(t, s, second)
	if one() == nil || two() == nil || in.applied != 0 || aside.applied != 4 {
		t.Errorf("of syncs lost again %d were applied, and %d to a copy", in.applied, aside.applied)
	}
	for _, b := range []*store.Batch{first, second} {
		if err := applied(t, s, b)(); err != nil {
			t.Error(err)
		}
	}
	if in.applied != 2 || s.OutOfOrder() != 0 {
		t.Errorf("%d were applied after all, %d out of order", in.applied, s.OutOfOrder())
	}
}
