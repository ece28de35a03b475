package sqlite_test

import (
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
	"github.com/meanwhile-run/meanwhile/internal/store/storetest"
)

func open(tb testing.TB, place string, o storetest.Options, unsynced bool) store.Store {
	tb.Helper()
	s, err := sqlite.Open(tb.Context(), place+".db", sqlite.Options{Clock: o.Clock, RowsAtEnd: o.RowsAtEnd, Unsynced: unsynced})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func synced(tb testing.TB, place string, o storetest.Options) store.Store {
	return open(tb, place, o, false)
}

// untold hides the outcome of every batch until it is replayed.
func untold(tb testing.TB, place string, o storetest.Options) store.Store {
	return faulty.Patient(faulty.New(open(tb, place, o, true), faulty.Plan{
		Commit: func(n int, _ *store.Batch) faulty.Fault {
			return faulty.Fault{Step: []faulty.Step{faulty.None, faulty.Unknown}[n%2]}
		},
	}))
}

func TestConformance(t *testing.T) { storetest.Run(t, storetest.Suite{Open: synced}) }

func TestConformanceWhenOutcomesAreUnknown(t *testing.T) {
	storetest.Run(t, storetest.Suite{Open: untold})
}

func BenchmarkStore(b *testing.B) { storetest.Benchmarks(b, storetest.Suite{Open: synced}) }
