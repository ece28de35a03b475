package engine

import (
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// At each split of a batch, an atomic group of submits stays together. Repeated splits come to
// an end.
func TestHalvesKeepGroupsWhole(t *testing.T) {
	t.Parallel()
	for size := 1; size <= 5; size++ {
		for before := range 4 {
			for after := range 4 {
				checkHalves(t, batchWithGroup(before, size, after), before+size+after, size)
			}
		}
	}
}

func batchWithGroup(before, size, after int) *store.Batch {
	b := store.NewBatch()
	group := &store.Group{Size: size}
	for i := range before + size + after {
		s := &store.Submit{}
		if before <= i && i < before+size {
			s.Group = group
		}
		b.Add(s)
	}
	return b
}

func checkHalves(t *testing.T, b *store.Batch, total, size int) {
	t.Helper()
	if b.Len() == 1 || isOneGroup(b) {
		return
	}
	first, second := halves(b)
	if first.Len() == 0 || second.Len() == 0 || first.Len()+second.Len() != b.Len() {
		t.Fatalf("%d of %d ops were halved into %d and %d", b.Len(), total, first.Len(), second.Len())
	}
	for _, half := range []*store.Batch{first, second} {
		grouped := 0
		for _, s := range half.Submits {
			if s.Group != nil {
				grouped++
			}
		}
		if grouped != 0 && grouped != size {
			t.Fatalf("%d of a group of %d are alone", grouped, size)
		}
		checkHalves(t, half, total, size)
	}
}
