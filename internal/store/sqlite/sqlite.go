// Package sqlite keeps jobs in one SQLite file. It is the default store and needs no other
// server and no C compiler. DESIGN.md explains how it works.
//
// One connection writes; [Store.Apply] owns it. A few connections read, each in short
// transactions. A commit is complete when its frames are in the write-ahead log, and durable
// when the log was synced (sync.go). The next commit does not wait for that, but a read waits
// until everything that it saw is durable. checkpoint.go copies the log into the file.
//
// Running jobs are mirrored in memory, so that checking a lease reads nothing. After a failed
// commit the mirror is discarded and loaded again. Output of running jobs goes first to one
// shared table, and moves to the job's own log once there is enough of it (tail.go).
//
// Names of tables and columns never change, so that old data opens. Some therefore carry words
// that the code no longer uses: usr is a user, idem is an idempotency key, a lane is the
// ordered set in which a ready job waits, a record is a side row.
package sqlite

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// Options configure a store. The zero value is a complete configuration without a disk
// reserve; a server also sets AtEnd.
type Options struct {
	// Clock decides when leases end and jobs become due. Nil is the wall clock of the
	// opening plus the time that has passed since, including time that the machine slept. A
	// later jump of the wall clock has no effect.
	Clock func() time.Time
	// AtEnd returns what to store when a job ends; see [store.AtEnd]. Nil stores nothing more.
	AtEnd store.AtEnd
	// PreallocateLog is the size in bytes that the write-ahead log gets when the store opens.
	// Commits then overwrite those bytes, which costs less than growing the file. 0
	// preallocates nothing.
	PreallocateLog int64
	// Ring has the keys that seal and open values; nil has none.
	Ring *sealed.Ring
	// Keyless opens a store without the keys of its values. Running jobs do not get output then, and
	// unreadable values stay as they are.
	Keyless bool
	// Readers is the number of concurrent reads; 0 means 4. Half as many lists are read beside
	// them.
	Readers int
	// Log receives errors of the background work; nil discards them.
	Log *slog.Logger
	// Reserve is the size in bytes of a file beside the database. Its space is kept for ends,
	// cancels, deletes and renewals on a full disk. 0 keeps no reserve.
	Reserve int64
	// Free returns how many bytes of the disk are free, and whether that is known. Nil means
	// that it is unknown. Several goroutines may call it at once.
	Free func() (bytes int64, known bool)
	// KeepFree is the number of free bytes below which the caller accepts no new work. When
	// the free space comes within a few megabytes of it, the store returns all of its unused
	// pages to the disk.
	KeepFree int64
	// MaxPages is the largest size of the file in pages of 4 KiB; 0 sets no limit. It is for
	// tests of a full disk.
	MaxPages int64
	// Unsynced skips the sync of every commit, so that a crash of the machine loses
	// acknowledged jobs. It is for tests that do not depend on durability.
	Unsynced bool
}

// Store is a [store.Store] in one SQLite file.
type Store struct {
	// Set once.
	clock        func() time.Time
	atEnd        store.AtEnd
	ring         *sealed.Ring
	keyless      bool // the tail was not read
	readers      readerPool
	listReaders  readerPool // of lists
	checkpointer *checkpointer
	vacuum       *vacuum
	syncer       *syncer
	tailViews    *tailViews
	queueViews   queueViews
	space        *space

	broken       atomic.Bool // the file is damaged: nothing more is written to it
	suspectReady atomic.Bool // see [ops.Memory.SuspectIsReady], as of the last batch
	// idSkew is the largest difference between the time in a job's id and its creation, in
	// milliseconds; see migration 0010. It is written under mu.
	idSkew atomic.Int64

	mu sync.Mutex
	// Guarded by mu. A commit holds it from begin to end.
	conn         *sqlite.Conn
	q            *statements
	memory       *ops.Memory
	running      map[job.ID]*runningJob
	tokens       map[job.Token]job.ID // of the running jobs
	runningBits  runningBits
	tail         tail
	recent       recentBatches
	totalChanges int64    // rows that this connection has changed, as of the last batch
	lastJobRow   int64    // the last row number that was given to a job
	damagedJobs  []job.ID // running jobs with damaged rows; the next batch ends them
	staleMemory  bool     // the fields above may not match the disk: load them again
	closed       bool
}

// runningJob is a running job in memory. Only the memory has all of it.
type runningJob struct {
	*ops.Job

	// Output that is in the tail and not yet in the job's log.
	pending         []byte // a block of entries
	firstTailRow    int64  // the first tail row with an entry of pending; 0 for none
	progressPending bool   // the job's row does not have its latest progress
	published       bool   // readers have a tailView of the job
}

//go:embed migrations/*.sql
var migrations embed.FS

// applicationID is the application_id of our files: "mnwl".
const applicationID = 0x6d6e776c

// ErrNewer reports that a newer version of the program wrote the data.
var ErrNewer = errors.New("sqlite: the data was written by a newer version of this program")

// Open opens the store in the file at path. It creates a missing file and applies the
// migrations that an older file lacks. It fails with [ErrNewer], [ErrForeign], or an error
// that wraps [store.ErrDamaged] or [store.ErrFull]; the message says what to do.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	s := &Store{
		clock:     o.Clock,
		atEnd:     o.AtEnd,
		ring:      o.Ring,
		keyless:   o.Keyless,
		memory:    ops.NewMemory(false),
		running:   map[job.ID]*runningJob{},
		tokens:    map[job.Token]job.ID{},
		tailViews: &tailViews{},
	}
	if s.clock == nil {
		s.clock = newClock(sleptSinceBoot).now
	}
	if o.Readers == 0 {
		o.Readers = 4
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s.space = &space{path: path, reserveSize: o.Reserve, keepFree: o.KeepFree, free: o.Free, log: o.Log}
	if err := s.open(ctx, path, o); err != nil {
		s.closeAfterFailedOpen()
		return nil, explain(path, err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, path string, o Options) (err error) {
	// The reserve of the previous process gives the opening its space on a full disk.
	s.space.open()
	// Nothing is written before the file is known to be a usable database of ours.
	if err := inspect(path); err != nil {
		return err
	}
	if s.conn, err = connect(path, writerPragmas(o)); err != nil {
		return err
	}
	if err := migrate(s.conn, o.Log); err != nil {
		return err
	}
	s.q = newStatements(s.conn)
	// Orphans go first, so that the memory is loaded without them.
	if err := s.removeOrphans(); err != nil {
		return err
	}
	if err := s.load(); err != nil {
		return err
	}
	if err := s.fillPresence(); err != nil {
		return err
	}
	file, err := os.Stat(path)
	if err != nil {
		return err
	}
	s.readers = newReaderPool(o.Readers, path, file, s.tailViews, o.Ring)
	s.listReaders = newReaderPool(max(o.Readers/2, 1), path, file, s.tailViews, o.Ring)
	s.updatePagesLocked()
	s.space.fillReserve()
	// On a nearly full disk, other files need the free bytes more than the log.
	if !s.space.fits(o.PreallocateLog + o.KeepFree + vacuumMargin) {
		o.PreallocateLog = 0
	}
	if s.syncer, err = openSyncer(path, o); err != nil {
		return err
	}
	if s.checkpointer, err = startCheckpointer(path, &s.mu, s.trusted, s.space, o.Log); err != nil {
		return err
	}
	s.startVacuum(o.Log)
	return nil
}

func writerPragmas(o Options) (list []string) {
	if o.MaxPages > 0 {
		defer func() { list = append(list, fmt.Sprintf("PRAGMA max_page_count = %d", o.MaxPages)) }()
	}
	sync := "NORMAL" // prevents corruption; the syncer adds durability
	if o.Unsynced {
		sync = "OFF"
	}
	return []string{
		"PRAGMA auto_vacuum = INCREMENTAL", // has no effect after the first table is created
		"PRAGMA journal_mode = WAL",
		"PRAGMA synchronous = " + sync,
		"PRAGMA wal_autocheckpoint = 0", // the checkpointer has its own connection
		"PRAGMA cache_size = -16384",
		"PRAGMA temp_store = MEMORY",
		fmt.Sprintf("PRAGMA journal_size_limit = %d", maxLogBytes),
	}
}

// busyTimeout is how long a connection waits for a lock of another program.
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

// migrate applies the migrations that the file lacks, each in a transaction.
func migrate(conn *sqlite.Conn, log *slog.Logger) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	if err := addFunctions(conn); err != nil {
		return err
	}
	version, err := pragma(conn, "user_version")
	if err != nil {
		return err
	}
	for i := int(version); i < len(names); i++ {
		// A new index on a million jobs takes seconds, in which the server does not answer yet.
		if version > 0 {
			log.Info("updating the database", "migration", names[i], "of", len(names))
		}
		if err := applyMigration(conn, names[i], i+1); err != nil {
			return fmt.Errorf("migration %s: %w", names[i], err)
		}
	}
	return nil
}

// addFunctions adds the functions of the program that migrations call.
func addFunctions(conn *sqlite.Conn) error {
	return errors.Join(
		conn.CreateFunction("failure_code", &sqlite.FunctionImpl{NArgs: 1, Deterministic: true, Scalar: failureCode}),
		conn.CreateFunction("unescaped", &sqlite.FunctionImpl{NArgs: 1, Deterministic: true, Scalar: unescaped}),
	)
}

// unescaped decodes a part of a URL path, for migration 0007.
func unescaped(_ sqlite.Context, args []sqlite.Value) (sqlite.Value, error) {
	text, err := url.PathUnescape(args[0].Text())
	return sqlite.TextValue(text), err
}

// failureCode returns the code of a stored failure, for migration 0013; NULL if it is damaged.
func failureCode(_ sqlite.Context, args []sqlite.Value) (sqlite.Value, error) {
	var f job.Failure
	if json.Unmarshal(args[0].Blob(), &f) != nil {
		return sqlite.Value{}, nil
	}
	return sqlite.TextValue(f.Code), nil
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

// Now returns the time of the store's clock; see [store.UpkeepReader].
func (s *Store) Now() time.Time { return roundTime(s.clock()) }

// Close waits for reads and the commit under way, and closes the file; see [store.Store].
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
	errs := []error{s.readers.close(), s.listReaders.close()}
	if !s.trusted() {
		// Closing the last connection would copy the log into the file. The log cannot be
		// trusted; the next opening reads what is really on the disk.
		return errors.Join(append(errs, s.syncer.close())...)
	}
	// With all of the log in the file, a copy of the file alone is complete.
	_ = sqlitex.ExecuteTransient(s.conn, "PRAGMA wal_checkpoint(TRUNCATE)", nil)
	errs = append(errs, s.conn.Close(), s.syncer.close())
	s.space.close()
	return errors.Join(errs...)
}

// closeAfterFailedOpen closes the parts that a failed opening had opened.
func (s *Store) closeAfterFailedOpen() {
	if s.vacuum != nil {
		s.vacuum.stop()
	}
	if s.checkpointer != nil {
		s.checkpointer.stop()
	}
	_, _ = s.readers.close(), s.listReaders.close()
	if s.conn != nil {
		_ = s.conn.Close()
	}
	if s.syncer != nil {
		_ = s.syncer.close()
	}
}
