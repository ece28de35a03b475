package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

// backupStepPages is the number of pages copied between two checks of the context.
const backupStepPages = 1024

// Backup copies the database at from into a new file at to, and syncs the copy. The copy shows
// one moment. Another process may use the database meanwhile, but its log cannot restart and
// grows. Backup calls progress with the bytes copied so far and the total.
func Backup(ctx context.Context, from, to string, progress func(done, total int64)) error {
	src, err := openToRead(from)
	if err != nil {
		return explain(from, err)
	}
	defer func() { _ = src.Close() }()
	// A read transaction keeps the source at this moment. Without it, every commit of the server
	// would make SQLite begin the copy again.
	for _, sql := range []string{"BEGIN", "SELECT count(*) FROM sqlite_schema"} {
		if err := sqlitex.ExecuteTransient(src, sql, nil); err != nil {
			return explain(from, err)
		}
	}
	if err := copyPages(ctx, src, to, progress); err != nil {
		return wrapDamage(err)
	}
	return syncPath(to)
}

func copyPages(ctx context.Context, src *sqlite.Conn, to string, progress func(done, total int64)) (err error) {
	// The copy is not used before it is complete, so it needs no journal and no syncs.
	dst, err := connect(to, []string{"PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	b, err := sqlite.NewBackup(dst, "main", src, "main")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if more, err = b.Step(backupStepPages); err != nil {
			return err
		}
		total := int64(b.PageCount()) * pageSize
		progress(total-int64(b.Remaining())*pageSize, total)
	}
	return nil
}

// syncPath syncs a file that is not open.
func syncPath(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// filesSchema is the first schema version in which jobs may have files.
const filesSchema = 2

// Files reads the database at path at one moment, and calls each for every job that has files
// and is not deleted. If the database is in use, each must return quickly, because the log
// cannot restart meanwhile.
func Files(path string, each func(o job.Owner, id job.ID, files []job.File) error) error {
	conn, err := openToRead(path)
	if err != nil {
		return explain(path, err)
	}
	defer func() { _ = conn.Close() }()
	// Files may read a database that no current version has opened yet.
	if version, err := pragma(conn, "user_version"); err != nil || version < filesSchema {
		return err
	}
	q := newQuery(conn, "SELECT id, extra, tenant, usr FROM jobs WHERE files > 0 AND deleted = 0")
	return q.each(func(c column) error {
		j := job.Job{ID: c.id(0)}
		if err := codec.DecodeExtra(c.bytes(1), &j); err != nil {
			return fmt.Errorf("which files the job %s has cannot be read: %w", j.ID, err)
		}
		return each(job.Owner{Tenant: c.text(2), User: c.text(3)}, j.ID, j.Files)
	})
}
