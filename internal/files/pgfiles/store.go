// Package pgfiles keeps the files of jobs in a PostgreSQL database, for any number of processes.
// The bytes of a file are rows of file_chunks. They are written while they arrive, each chunk in
// a transaction of its own, so that no transaction is as long as an upload. The local disk is a
// cache: an attempt gets its files as paths there.
//
// Any process may remove the files of a job; the others then remove their copies. Files without
// a job, which a killed process leaves, are removed a day later by any process.
package pgfiles

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/meanwhile-run/meanwhile/internal/files"
)

// DB runs each statement in a transaction of its own. It is a pool: a statement after a failed
// one gets another connection. The tables are in its current schema.
type DB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Options are the settings of a [Store]. A zero field has the default value that its comment
// names.
type Options struct {
	MaxFile   int64 // bytes of a file; as of [files.Limits]
	MaxStaged int64 // bytes of files that this process receives; as of [files.Limits]
	// Cache is the directory of the cache. Only one process may use it. Open empties it.
	Cache string
	// CacheBytes bounds the cache; 4 GiB. It holds the files of one job even if they have more.
	CacheBytes int64
	KeepFree   int64 // bytes of the disk that the cache leaves free; 64 MiB
	// Free returns the bytes of the disk that may still be written, where they are known. nil
	// asks the operating system.
	Free func() (bytes int64, known bool)
	Log  *slog.Logger // nil: silent
}

// Store keeps the files of jobs. Any goroutine may call its methods.
type Store struct {
	*files.Intake

	// Set once.
	db       DB
	cache    *cache
	log      *slog.Logger
	patience time.Duration // how long a statement is tried again while the database is away
}

var _ files.Store = (*Store)(nil)

const (
	// chunkSize is the size of a file's chunks in bytes. It is part of the format.
	chunkSize = 256 << 10

	defaultPatience   = 15 * time.Second
	defaultCacheBytes = 4 << 30
	defaultKeepFree   = 64 << 20
)

// Open empties the cache, or makes its directory. It does not use the database.
func Open(db DB, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.KeepFree == 0 {
		o.KeepFree = defaultKeepFree
	}
	c, err := openCache(o)
	if err != nil {
		return nil, err
	}
	return &Store{
		Intake:   files.NewIntake(files.Limits{MaxFile: o.MaxFile, MaxStaged: o.MaxStaged, ChunkSize: chunkSize}),
		db:       db,
		cache:    c,
		log:      o.Log,
		patience: defaultPatience,
	}, nil
}

// Close closes the cache's directory, when no attempt uses a file. It leaves the files: the next
// Open removes them.
func (s *Store) Close() error { return s.cache.root.Close() }

// Size implements [files.Store].
func (s *Store) Size(ctx context.Context) (int64, error) {
	sizes, err := collect(ctx, s, pgx.RowTo[int64], "select coalesce(sum(size), 0)::bigint from files where state = 1")
	if err != nil {
		return 0, unreadable(err)
	}
	return sizes[0], nil
}
