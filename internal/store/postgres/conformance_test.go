package postgres_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
	"github.com/meanwhile-run/meanwhile/internal/store/storetest"
)

// schemas has the database of each place of a test.
type schemas struct {
	pooled bool         // the stores are behind a pooler; set once
	ring   *sealed.Ring // of the stores; set once
	mu     sync.Mutex
	all    map[string]pgtest.Database // guarded by mu
	urls   map[string]string          // guarded by mu; through the pooler
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

// url returns the URL for a store at a place.
func (s *schemas) url(tb testing.TB, place string) string {
	tb.Helper()
	d := s.at(tb, place)
	if !s.pooled {
		return d.URL()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.urls == nil {
		s.urls = map[string]string{}
	}
	if s.urls[place] == "" {
		s.urls[place] = d.Pooler(tb)
	}
	return s.urls[place]
}

func (s *schemas) open(tb testing.TB, place string, o storetest.Options) store.Store {
	tb.Helper()
	st, err := postgres.Open(context.Background(), s.url(tb, place), postgres.Options{Clock: o.Clock, AtEnd: o.AtEnd, Readers: 2, Unprepared: s.pooled, Ring: s.ring})
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
	pgtest.InShort(t)
	s := &schemas{}
	var opened atomic.Int64
	storetest.Run(t, storetest.Suite{Slow: true, OpenSeveral: s.openSeveral, Open: func(tb testing.TB, place string, o storetest.Options) store.Store {
		st := s.open(tb, place, o)
		if opened.Add(1)%2 == 0 {
			postgres.AlwaysRead(st.(*postgres.Store))
		}
		return st
	}})
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
	s := &schemas{ring: ring}
	storetest.Run(t, storetest.Suite{Open: s.open, OpenSeveral: s.openSeveral})
}

// Behind a pooler each transaction may get another connection.
func TestConformanceBehindPooler(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a pooler for each rule")
	}
	t.Parallel()
	s := &schemas{pooled: true}
	storetest.RunTopics(t, storetest.Suite{Open: s.open, OpenSeveral: s.openSeveral}, "submit", "idempotency", "claim", "limits", "lease", "output", "finish", "cancel", "rows", "batch")
}

func BenchmarkStore(b *testing.B) { storetest.Benchmarks(b, storetest.Suite{Open: (&schemas{}).open}) }

// Every rule holds when the outcome of commits is unknown: whether they are stored is then looked
// up in the database, and the memory is loaded again. Direct batches fail because another store
// came first.
func TestConformanceWhenAnswersAreLost(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the whole suite again")
	}
	s := &schemas{}
	open := func(tb testing.TB, place string, o storetest.Options) store.Store {
		st := s.open(tb, place, o)
		postgres.LoseAnswers(st.(*postgres.Store))
		postgres.Eager(st.(*postgres.Store))
		return faulty.Retrying(st)
	}
	storetest.Run(t, storetest.Suite{ForgetsTurns: true, Open: open, OpenSeveral: func(tb testing.TB, place string, n int, o storetest.Options) (all []store.Store) {
		for range n {
			all = append(all, open(tb, place, o))
		}
		return all
	}})
}
