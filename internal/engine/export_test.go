package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// histories is the value of the flag -histories.
var histories = flag.Uint64("histories", 0, "how many random histories each simulation runs; 0 for a few")

// Seeds returns the seeds of the random histories that a simulation runs. Their number is the
// flag's value, or a small default, twice that in CI. With -short it skips the test.
func Seeds(t *testing.T, few uint64) (list []uint64) {
	t.Helper()
	n := few
	switch {
	case *histories > 0:
		n = *histories
	case testing.Short():
		t.Skip("runs random histories")
	case os.Getenv("MEANWHILE_CI") != "":
		n = 2 * few
	}
	for seed := range n {
		list = append(list, seed)
	}
	return list
}

// RunInBackground runs an engine, or a part of it, until stop is called. stop waits until it has
// ended.
func RunInBackground(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// testQueue returns a queue "q" without a maximum depth.
func testQueue(concurrency, maxAttempts int, t job.Timeouts) Queue {
	return Queue{
		Name: "q", Concurrency: concurrency, MaxAttempts: maxAttempts, Keep: time.Hour, KeepFailed: time.Hour,
		Policy: job.Policy{Timeouts: t},
	}
}

// NewTestStore opens a store in a new directory. See [OpenTestStore].
func NewTestStore(t testing.TB, o sqlite.Options) store.Store {
	t.Helper()
	return OpenTestStore(t, filepath.Join(t.TempDir(), "jobs.db"), o)
}

// OpenTestStore opens the store at path, and creates it if the file does not exist. The
// caller closes it. It may be called inside and outside of a synctest bubble.
func OpenTestStore(t testing.TB, path string, o sqlite.Options) store.Store {
	t.Helper()
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		empty, err := emptyStore()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, empty, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := OpenOutsideBubble(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// emptyStore is the content of a database without jobs. A new store begins as a copy of it,
// because the migrations take longer than most tests.
var emptyStore = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "jobs.db")
	s, err := OpenOutsideBubble(path, sqlite.Options{Unsynced: true})
	if err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// OpenOutsideBubble opens a store on a goroutine that belongs to no synctest bubble. The
// background goroutines of the store then run in real time. In a bubble they would make up to
// four checkpoints in each virtual second. That is most of the work of a simulation, and no test
// of the engine needs it. The store's clock is that of its callers, so virtual in a bubble.
func OpenOutsideBubble(path string, o sqlite.Options) (store.Store, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Readers == 0 {
		o.Readers = 1
	}
	c := <-openers
	defer func() { openers <- c }()
	c.requests <- openRequest{path, o}
	answer := <-c.answers
	return answer.store, answer.err
}

// opener is a goroutine that opens stores.
type opener struct {
	requests chan openRequest // never closed
	answers  chan openAnswer  // never closed
}

type openRequest struct {
	path    string
	options sqlite.Options
}

type openAnswer struct {
	store store.Store
	err   error
}

// openers are the idle openers. They start with the package, before any bubble.
var openers = startOpeners(4)

func startOpeners(n int) chan *opener {
	all := make(chan *opener, n)
	for range n {
		c := &opener{requests: make(chan openRequest), answers: make(chan openAnswer)}
		go func() {
			for r := range c.requests {
				s, err := sqlite.Open(context.Background(), r.path, r.options)
				if err != nil {
					err = fmt.Errorf("open %s: %w", r.path, err)
				}
				c.answers <- openAnswer{s, err}
			}
		}()
		all <- c
	}
	return all
}

// HeldResources returns how many jobs of each resource the engine counts as held.
func (e *Engine) HeldResources() map[string]int {
	e.resources.mu.Lock()
	defer e.resources.mu.Unlock()
	return maps.Clone(e.resources.held)
}

// Announcements returns how many processes have announced their limits.
func Announcements(t *testing.T, e *Engine) int {
	t.Helper()
	rows, err := e.store.Rows(t.Context(), store.RowSet{Owner: limitsOwner, Kind: limitsKind}, store.RowPage{Limit: maxAnnouncements})
	if err != nil {
		t.Fatal(err)
	}
	return len(rows)
}
