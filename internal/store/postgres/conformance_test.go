package postgres_test

import (
	"context"
	"sync"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/store/storetest"
)

// schemas has the database of each place of a test.
type schemas struct {
	mu  sync.Mutex
	all map[string]pgtest.Database // guarded by mu
}

// at returns the database of a place. The first call makes it.
func (s *schemas) at(tb testing.TB, place string) pgtest.Database {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, known := s.all[place]
	if !known {
		d = postgres.NewDatabase(tb)
		if s.all == nil {
			s.all = map[string]pgtest.Database{}
		}
		s.all[place] = d
	}
	return d
}

func (s *schemas) open(tb testing.TB, place string, o storetest.Options) store.Store {
	tb.Helper()
	st, err := postgres.Open(context.Background(), s.at(tb, place).URL(), postgres.Options{Clock: o.Clock, AtEnd: o.AtEnd, Readers: 2})
	if err != nil {
		tb.Fatal(err)
	}
	return st
}

func (s *schemas) openSeveral(tb testing.TB, place string, n int, o storetest.Options) (all []store.Store) {
	for range n {
		all = append(all, s.open(tb, place, o))
	}
	return all
}

func TestConformance(t *testing.T) {
	t.Parallel()
	s := &schemas{}
	storetest.Run(t, storetest.Suite{Open: s.open, OpenSeveral: s.openSeveral})
}

func BenchmarkStore(b *testing.B) { storetest.Benchmarks(b, storetest.Suite{Open: (&schemas{}).open}) }
