package sqlite_test

import (
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
	"github.com/meanwhile-run/meanwhile/internal/store/storetest"
)

var suite = storetest.Suite{Open: open}

func open(tb testing.TB, place string, o storetest.Options) store.Store {
	tb.Helper()
	s, err := sqlite.Open(tb.Context(), place+".db", sqlite.Options{Clock: o.Clock, RowsAtEnd: o.RowsAtEnd})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) { storetest.Run(t, suite) }

func BenchmarkStore(b *testing.B) { storetest.Benchmarks(b, suite) }
