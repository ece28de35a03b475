package move

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
	"github.com/meanwhile-run/meanwhile/internal/store/storetest"
)

// newDatabase makes a database with all migrations. When the test ends, it must pass a check.
func newDatabase(tb testing.TB) pgtest.Database {
	tb.Helper()
	d := pgtest.Shared(tb).Schema(tb)
	conn := d.Connect(tb)
	if _, err := postgres.Up(context.Background(), conn); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Skipped() {
			return // the move was refused half-way
		}
		if err := postgres.Check(context.Background(), d.Connect(tb), func(defect string) { tb.Errorf("a check of the database finds: %s", defect) }); err != nil {
			tb.Error(err)
		}
	})
	return d
}

// tryCopy copies the database at path, and ends the import without taking jobs back.
func tryCopy(path string, d pgtest.Database, now time.Time) (Copied, error) {
	s, err := sqlite.OpenSnapshot(context.Background(), path, now, nil)
	if err != nil {
		return Copied{}, err
	}
	defer func() { _ = s.Close() }()
	state, err := s.State()
	if err != nil {
		return Copied{}, err
	}
	to, err := postgres.OpenImport(context.Background(), d.URL(), postgres.Source{State: state, Place: path}, postgres.ImportOptions{})
	if err != nil {
		return Copied{}, err
	}
	defer to.Close()
	copied, err := Copy(context.Background(), Source{Snapshot: s}, to, func(Report) {})
	if err == nil {
		err = to.End(context.Background())
	}
	return copied, err
}

// movingStores opens a SQLite store at the first opening of a place. At the next one it moves the
// content to a database, and opens that.
type movingStores struct {
	mu    sync.Mutex
	moved map[string]*pgtest.Database // guarded by mu; nil before the move
}

func (m *movingStores) open(tb testing.TB, place string, o storetest.Options) store.Store {
	tb.Helper()
	m.mu.Lock()
	at, opened := m.moved[place]
	m.moved[place] = at
	m.mu.Unlock()
	if !opened {
		s, err := sqlite.Open(context.Background(), place+".db", sqlite.Options{Clock: o.Clock, AtEnd: o.AtEnd, Unsynced: true, Readers: 2})
		if err != nil {
			tb.Fatal(err)
		}
		return s
	}
	if at == nil {
		d := newDatabase(tb)
		if _, err := tryCopy(place+".db", d, o.Clock()); errors.Is(err, postgres.ErrUnstorable) {
			tb.Skip(err) // a rule about texts that the other store may refuse
		} else if err != nil {
			tb.Fatal(err)
		}
		if err := os.Remove(place + ".db"); err != nil {
			tb.Fatal(err)
		}
		m.mu.Lock()
		m.moved[place] = &d
		m.mu.Unlock()
		at = &d
	}
	s, err := postgres.Open(context.Background(), at.URL(), postgres.Options{Clock: o.Clock, AtEnd: o.AtEnd, Readers: 2})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// A store that is moved from SQLite to PostgreSQL whenever it is opened again passes the whole
// suite, with random histories in which every kind of job and row is moved.
func TestMovedStoreKeepsTheContract(t *testing.T) {
	if testing.Short() {
		t.Skip("the whole suite, with a database for each rule that opens its store again")
	}
	t.Parallel()
	m := &movingStores{moved: map[string]*pgtest.Database{}}
	storetest.Run(t, storetest.Suite{Open: m.open})
}
