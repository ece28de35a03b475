// Package sqlite keeps jobs in one SQLite file: the default store, with no other
// server and no C compiler.
//
// One connection writes, owned by Commit; a few read, each in short transactions
// of their own. The journal is a write-ahead log. A commit is over when its frames
// are in the log, and durable when the log was synced (sync.go): the next one is
// applied meanwhile, and a read waits until all that it saw is durable. A
// connection of its own moves the log into the file (checkpoint.go).
// What is running is mirrored in memory, so that a lease is checked without a
// read; the mirror is thrown away whenever a commit did not succeed. What running
// jobs say shares the pages of one table until it is worth a row of a job's own log
// (tail.go).
package sqlite

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Options set a store up. The zero value is what a server uses, but for AtEnd.
type Options struct {
	// Clock decides leases and due times. Nil is the wall time of the opening plus the
	// time that has passed since, also while the machine slept. A jump of the wall clock
	// moves nothing.
	Clock func() time.Time
	// AtEnd says what follows from the ends of jobs; nil is nothing.
	AtEnd store.AtEnd
	// PreallocateLog is the size in bytes that the write-ahead log gets when the store opens.
	// Commits then overwrite those bytes, which costs less than growing the file. 0
	// preallocates nothing.
	PreallocateLog int64
	// Readers is how many reads go on at once; 0 means 4.
	Readers int
	// Log is told of what goes wrong behind the commits; nil discards.
	Log *slog.Logger
	// Reserve is how many bytes of the disk are held for ends, cancels, deletes and
	// renewals, in a file beside the database; 0 for none.
	Reserve int64
	// Free says how many bytes of the disk are free, where that is known; nil when
	// nobody knows. It may be called by any number of goroutines.
	Free func() (bytes int64, known bool)
	// KeepFree is below how many bytes of room no new work is taken. A store that comes
	// close to it gives back to the disk whatever pages it does not use.
	KeepFree int64
	// MaxPages is how many pages of 4 KiB the file may have; 0 for no bound. For tests
	// of a full disk.
	MaxPages int64
	// Unsynced leaves out the sync of every commit: a crash of the machine then loses
	// acknowledged jobs. For tests of what does not depend on it.
	Unsynced bool
}

// Store is a store in one SQLite file.
type Store struct {
	// Set once.
	clock        func() time.Time
	atEnd        store.AtEnd
	readers      chan *reader // the idle ones; Close takes them all
	readerCount  int
	checkpointer *checkpointer
	vacuum       *vacuum
	syncer       *syncer
	tailViews    *tailViews
	queueViews   queueViews
	space        *space

	broken       atomic.Bool // the file was found damaged: nothing more is written to it
	suspectStuck atomic.Bool // after the last batch a suspect is parked and none runs
	// idsApart is how far the time in an id ever was from when its job was created, in
	// milliseconds: see the migration that made the table created. Written under mu.
	idSkew atomic.Int64

	mu sync.Mutex
	// Guarded by mu, which a commit holds from beginning to end.
	conn         *sqlite.Conn
	q            *statements
	queues       map[string]*queueState
	running      map[job.ID]*runningJob
	suspects     suspects
	tokens       map[job.Token]job.ID // of the running jobs
	runningBits  runningBits
	tail         tail
	recent       recentBatches
	totalChanges int64    // rows that this connection ever changed, after that batch
	lastJobRow   int64    // the last row number that was given to a job
	batchCount   int64    // how many were applied
	damagedJobs  []job.ID // running jobs whose rows are, and which the next batch ends
	staleMemory  bool     // the memory above may be ahead of the disk: load it again
	closed       bool
}

// held is a running job: its row, and the lease on it.
type runningJob struct {
	job          row
	token        job.Token
	startCursor  int64 // the last entry of the attempts before
	earlierBytes int64 // bytes that those have said
	worker       string
	process      job.Process
	leaseFor     time.Duration // as it was claimed
	leaseUntil   time.Time
	startedAt    time.Time // see [store.Running]
	heardAt      time.Time
	leaseUsed    bool
	deleted      bool
	idem         string
	hasOutput    bool // see [store.Running]

	// What it has said and has in the tail.
	pending         []byte
	firstTailRow    int64 // the first row of it; 0 for none
	progressPending bool  // the row of the job does not have its progress
	published       bool  // readers were told of it
}

//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks a file as ours: "mnwl".
const applicationID = 0x6d6e776c

// ErrNewer is why a store refuses to open: a newer version of the program wrote it.
var ErrNewer = errors.New("sqlite: the data was written by a newer version of this program")

// Open opens the store in the file at path, makes it if there is none, and brings
// an older one up to date.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	s := &Store{
		clock:       o.Clock,
		atEnd:       o.AtEnd,
		readerCount: o.Readers,
		running:     map[job.ID]*runningJob{},
		tokens:      map[job.Token]job.ID{},
		tailViews:   &tailViews{},
	}
	if s.clock == nil {
		s.clock = newClock(sleptSinceBoot).now
	}
	if s.readerCount == 0 {
		s.readerCount = 4
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s.space = newSpace(path, o)
	if err := s.open(ctx, path, o); err != nil {
		s.closeAfterFailedOpen()
		return nil, explain(path, err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, path string, o Options) (err error) {
	s.space.open()
	if err := inspect(path); err != nil {
		return err
	}
	if s.conn, err = connect(path, writerPragmas(o)); err != nil {
		return err
	}
	if err := migrate(s.conn); err != nil {
		return err
	}
	if s.q, err = prepareAll(s.conn); err != nil {
		return err
	}
	if err := s.removeOrphans(); err != nil {
		return err
	}
	if err := s.load(); err != nil {
		return err
	}
	if err := s.fillPresence(); err != nil {
		return err
	}
	s.readers = make(chan *reader, s.readerCount)
	for range s.readerCount {
		r, err := openReader(path, s.tailViews)
		if err != nil {
			return err
		}
		s.readers <- r
	}
	s.updatePagesLocked()
	s.space.fillReserve()
	if !s.space.fits(o.PreallocateLog + o.KeepFree + vacuumMargin) {
		o.PreallocateLog = 0 // what room there is, others need
	}
	if s.syncer, err = openSyncer(path, o); err != nil {
		return err
	}
	if s.checkpointer, err = startCheckpointer(path, &s.mu, s.trusted, s.space, o.Log); err != nil {
		return err
	}
	return s.startVacuum(o.Log)
}

func writerPragmas(o Options) (list []string) {
	if o.MaxPages > 0 {
		defer func() { list = append(list, fmt.Sprintf("PRAGMA max_page_count = %d", o.MaxPages)) }()
	}
	sync := "NORMAL" // safe from corruption; the syncer adds durability
	if o.Unsynced {
		sync = "OFF"
	}
	return []string{
		"PRAGMA auto_vacuum = INCREMENTAL", // before the first table, or never
		"PRAGMA journal_mode = WAL",
		"PRAGMA synchronous = " + sync,
		"PRAGMA wal_autocheckpoint = 0", // a connection of its own does that
		"PRAGMA cache_size = -16384",
		"PRAGMA temp_store = MEMORY",
		fmt.Sprintf("PRAGMA journal_size_limit = %d", maxLogBytes),
	}
}

// busyTimeout is how long another program's lock is waited for.
const busyTimeout = 5 * time.Second

func connect(path string, pragmas []string) (*sqlite.Conn, error) {
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenCreate)
	if err != nil {
		return nil, err
	}
	conn.SetBusyTimeout(busyTimeout)
	for _, p := range pragmas {
		if err := sqlitex.ExecuteTransient(conn, p, nil); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("%s: %w", p, err)
		}
	}
	return conn, nil
}

// migrate applies the migrations that the file has not seen, each in a transaction.
func migrate(conn *sqlite.Conn) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	if err := conn.CreateFunction("unescaped", &sqlite.FunctionImpl{NArgs: 1, Deterministic: true, Scalar: unescaped}); err != nil {
		return err
	}
	version, err := pragma(conn, "user_version")
	if err != nil {
		return err
	}
	for i := int(version); i < len(names); i++ {
		if err := applyMigration(conn, names[i], i+1); err != nil {
			return fmt.Errorf("migration %s: %w", names[i], err)
		}
	}
	return nil
}

// unescaped is what a migration needs of net/url.
func unescaped(_ sqlite.Context, args []sqlite.Value) (sqlite.Value, error) {
	text, err := url.PathUnescape(args[0].Text())
	return sqlite.TextValue(text), err
}

func applyMigration(conn *sqlite.Conn, name string, version int) error {
	sql, err := migrations.ReadFile(name)
	if err != nil {
		return err
	}
	script := fmt.Sprintf("%s;\nPRAGMA application_id = %d;\nPRAGMA user_version = %d;", sql, applicationID, version)
	return sqlitex.ExecuteScript(conn, script, nil)
}

func pragma(conn *sqlite.Conn, name string) (v int64, err error) {
	err = sqlitex.ExecuteTransient(conn, "PRAGMA "+name, &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error { v = stmt.ColumnInt64(0); return nil },
	})
	return v, err
}

// Now is the store's clock.
func (s *Store) Now() time.Time { return roundTime(s.clock()) }

// Close waits for what is under way and closes the file.
func (s *Store) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	s.vacuum.stop()
	s.checkpointer.stop()
	var errs []error
	for range s.readerCount {
		errs = append(errs, (<-s.readers).close())
	}
	if !s.trusted() {
		// Closing the last connection would copy the log: whoever opens it anew reads
		// what is really there.
		return errors.Join(append(errs, s.syncer.close())...)
	}
	// What is left of the log goes into the file, so that a copy of it is whole.
	_ = sqlitex.ExecuteTransient(s.conn, "PRAGMA wal_checkpoint(TRUNCATE)", nil)
	errs = append(errs, s.conn.Close(), s.syncer.close())
	s.space.close()
	return errors.Join(errs...)
}

// abandon closes what a failed opening left open.
func (s *Store) closeAfterFailedOpen() {
	if s.vacuum != nil {
		s.vacuum.stop()
	}
	if s.checkpointer != nil {
		s.checkpointer.stop()
	}
	for len(s.readers) > 0 {
		_ = (<-s.readers).close()
	}
	if s.conn != nil {
		_ = s.conn.Close()
	}
	if s.syncer != nil {
		_ = s.syncer.close()
	}
}
