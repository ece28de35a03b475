package sqlite_test

import (
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
	return faulty.Patient(faulty.New(open(true)(tb, place, o), faulty.Plan{Commit: faulty.Every(2, faulty.Unknown, 1)}))
}

func TestConformance(t *testing.T) { storetest.Run(t, storetest.Suite{Open: open(false)}) }

func TestConformanceWhenOutcomesAreUnknown(t *testing.T) {
	storetest.Run(t, storetest.Suite{Open: untold})
}

func BenchmarkStore(b *testing.B) { storetest.Benchmarks(b, storetest.Suite{Open: open(false)}) }
