package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
	"github.com/meanwhile-run/meanwhile/internal/store/storetest"
)

// opener returns a function that opens the store at a place, and creates its database if it does
// not exist. Each reader takes an eighth of the time of an opening; readers 0 is the default.
func opener(unsynced bool, readers int) func(testing.TB, string, storetest.Options) store.Store {
	return sealingOpener(unsynced, readers, nil)
}

// sealingOpener is opener for stores with keys.
func sealingOpener(unsynced bool, readers int, ring *sealed.Ring) func(testing.TB, string, storetest.Options) store.Store {
	return func(tb testing.TB, place string, o storetest.Options) store.Store {
		tb.Helper()
		path := place + ".db"
		if _, err := os.Stat(path); os.IsNotExist(err) {
			sqlite.WriteNewDatabase(tb, path)
		}
		s, err := sqlite.Open(context.Background(), path, sqlite.Options{Clock: o.Clock, AtEnd: o.AtEnd, Unsynced: unsynced, Readers: readers, Ring: ring})
		if err != nil {
			tb.Fatal(err)
		}
		if !testing.Short() {
			tb.Cleanup(func() { sqlite.CheckKept(tb, path) }) // the suite has closed the store then
		}
		return s
	}
}

// openWithUnknownOutcomes opens a store that hides the outcome of every batch until it is
// committed a second time.
func openWithUnknownOutcomes(tb testing.TB, place string, o storetest.Options) store.Store {
	return faulty.Retrying(faulty.New(opener(true, 2)(tb, place, o), faulty.Plan{Commit: faulty.Every(2, faulty.LostEither, 1)}))
}

// openWithLostSyncs opens a store that loses the sync of some batches, and of all after these.
// Half of the batches without a sync are stored and half are not.
func openWithLostSyncs(tb testing.TB, place string, o storetest.Options) store.Store {
	return faulty.Retrying(faulty.New(opener(true, 2)(tb, place, o), faulty.Plan{
		Commit: faulty.Every(11, faulty.SyncLostEither, 3),
		Copy: func() (store.Store, error) {
			at := filepath.Join(tb.TempDir(), "copy")
			if err := sqlite.Backup(context.Background(), place+".db", at+".db", func(_, _ int64) {}); err != nil {
				return nil, err
			}
			return opener(true, 2)(tb, at, o), nil
		},
	}))
}

// Without -short every commit is synced. Only waiting for the disk depends on that: no rule
// crashes the machine.
func TestConformance(t *testing.T) {
	t.Parallel()
	open := opener(false, 0)
	if testing.Short() {
		open = opener(true, 1)
	}
	storetest.Run(t, storetest.Suite{Open: open})
}

func TestConformanceWhenSealed(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the suite once more")
	}
	ring, err := sealed.Parse(sealed.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, storetest.Suite{Open: sealingOpener(true, 1, ring)})
}

func TestConformanceWhenOutcomesAreUnknown(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("commits every batch of the suite twice")
	}
	storetest.Run(t, storetest.Suite{Open: openWithUnknownOutcomes})
}

func TestConformanceWhenSyncsAreLost(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("opens a copy for every other loss")
	}
	storetest.Run(t, storetest.Suite{Open: openWithLostSyncs})
}

func BenchmarkStore(b *testing.B) { storetest.Benchmarks(b, storetest.Suite{Open: opener(false, 0)}) }
