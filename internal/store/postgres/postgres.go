// Package postgres keeps the jobs of any number of equal processes in a PostgreSQL database.
// DESIGN.md explains how it works.
//
// One connection of each process writes; [Store.Apply] owns it. A pool of connections reads. All
// batches that move jobs between states have one order, over all processes: each takes the same
// advisory lock in its transaction. So each process can keep the counts and turns of all queues
// in memory. It learns what the others have changed from the table moves (memory.go).
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// Options configure a store. The zero value is a complete configuration; a server also sets AtEnd.
type Options struct {
	// Clock decides when leases end and jobs become due. Nil is the clock of the database.
	Clock func() time.Time
	// AtEnd returns what to store when a job ends; see [store.AtEnd]. Nil stores nothing more.
	AtEnd store.AtEnd
	// Ring has the keys that seal and open values; nil has none. All processes need the same keys.
	Ring *sealed.Ring
	// Readers is the number of concurrent reads; 0 means 4.
	Readers int
	// Unprepared sends each statement whole. A transaction pooler that knows no prepared
	// statements needs that.
	Unprepared bool
	// patience is a shorter patience for a test.
	patience time.Duration
	// alwaysRead makes no batch direct.
	alwaysRead bool
	// Importing opens a database whose [Import] has copied all rows and has not ended.
	Importing bool
	// Log receives errors of the background work; nil discards them.
	Log *slog.Logger
}

// ErrAsynchronous means that the database confirms a commit before it is on disk.
var ErrAsynchronous = errors.New("postgres: the database has synchronous_commit = off, so that a crash would lose acknowledged jobs: " +
	"set it to on for this user or database")

// Store is a [store.Store] in a PostgreSQL database.
type Store struct {
	// Set once.
	clock     *clock
	atEnd     store.AtEnd
	ring      *sealed.Ring
	log       *slog.Logger
	options   Options
	config    *pgconn.Config // of the writer
	pool      *pgxpool.Pool  // of the readers
	lists     chan struct{}  // has an element for each list that is being read
	process   int64          // the number of this process's advisory lock
	guard     *guard
	pooled    atomic.Bool // a pooler is between this process and the database
	folding   folding
	outcomes  outcomes
	maxSilent time.Duration // see holder.go
	aloneFor  time.Duration // see direct.go

	// Set by tests before the first batch: called before and after the commit of a batch is sent.
	beforeCommit func()
	afterCommit  func(error) error

	mu sync.Mutex
	// Guarded by mu. A batch holds it from begin to end.
	writer    *line // nil after its connection was lost
	mem       *ops.Memory
	known     *known
	foldedAt  time.Time  // when this process last folded
	lastSeq   int64      // the last move that mem has followed or made
	lastAt    time.Time  // the time of that move
	foreignAt time.Time  // when a move of another process was last followed
	lastN     int64      // the highest number of a job that was used
	idSkew    int64      // see migration 0001; in microseconds
	begun     *time.Time // the clock in the transaction that Begin has begun; nil for none
	stale     bool       // mem may not match the database: load it again
	inDoubt   bool       // whether the last batch is stored is unknown: its transaction may not be over
	closed    bool
}

const (
	closeTimeout   = 2 * time.Second
	defaultReaders = 4
)

// Open opens the store in the database that the connection string names: a URL or the keywords
// and values of libpq. All of its migrations must have been applied; see [Up].
func Open(ctx context.Context, conninfo string, o Options) (_ *Store, err error) {
	if o.Readers == 0 {
		o.Readers = defaultReaders
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	config, err := pgxpool.ParseConfig(conninfo)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(o.Readers)
	if o.Unprepared {
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	s := &Store{
		guard: &guard{config: &config.ConnConfig.Config, patience: cmp.Or(o.patience, patience)},
		clock: newClock(o.Clock), atEnd: o.AtEnd, ring: o.Ring, log: o.Log, options: o,
		config: &config.ConnConfig.Config, process: randomLock(), stale: true, folding: defaultFolding, maxSilent: maxSilent, aloneFor: aloneFor, foldedAt: time.Now(), lists: make(chan struct{}, max(o.Readers/2, 1)),
	}
	s.guard.watchPool(config)
	config.AfterConnect = configureReader
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	s.guard.pool = s.pool
	if err := s.open(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	status, err := Status(ctx, s.pool)
	if err == nil {
		err = Usable(status)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.connect(ctx); err != nil {
		return err
	}
	return s.refresh(ctx)
}

// connect connects the writer if it has no connection.
func (s *Store) connect(ctx context.Context) error {
	if s.writer != nil && !s.writer.isClosed() {
		return nil
	}
	s.disconnect()
	w, err := connectLine(ctx, s.config, s.options.Unprepared)
	if err != nil {
		return err
	}
	w.guard = s.guard
	backend, err := checkDurable(ctx, flush{w: w})
	if w.pooled = backend != int64(w.pid) || s.options.Unprepared; err == nil && !w.pooled {
		f := flush{w: w}
		f.add(configureSession, nil, append(timeouts(), intParam(backend))...)
		err = f.run(ctx)
	}
	if err == nil {
		// Before the first batch, which may wait for a lock and then reads the clock badly.
		f := flush{w: w}
		err = s.clock.during(&f, func() error { return f.run(ctx) })
	}
	if err != nil {
		w.close()
		return err
	}
	s.pooled.Store(w.pooled)
	s.writer = w
	return nil
}

// disconnect drops the writer's connection.
func (s *Store) disconnect() {
	s.begun = nil
	if s.writer != nil {
		s.writer.close()
		s.writer = nil
	}
}

// Now returns the time of the store's clock; see [store.UpkeepReader].
func (s *Store) Now() time.Time { return roundTime(s.clock.now()) }

// roundTime rounds a time to the microseconds that the store keeps.
func roundTime(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()) }

// Close waits for reads and the commit under way, and closes the connections; see [store.Store].
func (s *Store) Close() error {
	s.mu.Lock()
	again := s.closed
	_ = s.drain() // its caller learns the outcome
	s.closed = true
	s.disconnect()
	s.mu.Unlock()
	if !again {
		s.pool.Close()
	}
	return nil
}

var showDurable = &statement{"show_durable", "select current_setting('synchronous_commit'), pg_backend_pid()"}

// checkDurable refuses a database that loses acknowledged commits. It returns the process of the
// server that answers.
func checkDurable(ctx context.Context, f flush) (backend int64, err error) {
	setting := ""
	f.add(showDurable, func(r *record) { setting, backend = r.text(), r.int() })
	if err := f.run(ctx); err != nil {
		return 0, fmt.Errorf("read synchronous_commit: %w", err)
	}
	if setting == "off" {
		return 0, ErrAsynchronous
	}
	return backend, nil
}
