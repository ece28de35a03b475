package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
	"github.com/meanwhile-run/meanwhile/internal/store/storetest"
)

func open(unsynced bool) func(testing.TB, string, storetest.Options) store.Store {
	return func(tb testing.TB, place string, o storetest.Options) store.Store {
		tb.Helper()
		s, err := sqlite.Open(tb.Context(), place+".db", sqlite.Options{Clock: o.Clock, AtEnd: o.AtEnd, Unsynced: unsynced})
		if err != nil {
			tb.Fatal(err)
		}
		return s
	}
}

// untold hides the outcome of every batch until it is committed a second time.
func untold(tb testing.TB, place string, o storetest.Options) store.Store {
	return faulty.Retrying(faulty.New(open(true)(tb, place, o), faulty.Plan{Commit: faulty.Every(2, faulty.LostEither, 1)}))
}

func TestConformance(t *testing.T) { storetest.Run(t, storetest.Suite{Open: open(false)}) }

func TestConformanceWhenOutcomesAreUnknown(t *testing.T) {
	storetest.Run(t, storetest.Suite{Open: untold})
}

// unheard loses the syncs of some batches, and of those behind them: half of them are then
// stored and half are not.
func unheard(tb testing.TB, place string, o storetest.Options) store.Store {
	return faulty.Retrying(faulty.New(open(true)(tb, place, o), faulty.Plan{
		Commit: faulty.Every(11, faulty.SyncLostEither, 3),
		Copy: func() (store.Store, error) {
			at := filepath.Join(tb.TempDir(), "copy")
			if err := sqlite.Backup(tb.Context(), place+".db", at+".db", func(_, _ int64) {}); err != nil {
				return nil, err
			}
			return open(true)(tb, at, o), nil
		},
	}))
}

func TestConformanceWhenSyncsAreLost(t *testing.T) {
	if testing.Short() {
		t.Skip("opens a copy for every other loss")
	}
	storetest.Run(t, storetest.Suite{Open: unheard})
}

func BenchmarkStore(b *testing.B) { storetest.Benchmarks(b, storetest.Suite{Open: open(false)}) }
