package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// copyStep is how many pages are copied between two looks at the context.
const backupStepPages = 1024

// Backup copies the database at from, which may be in use by another process, into
// a new file at to, as it is at one moment, and syncs it. It calls progress with the
// bytes that are copied and those that there are. While it lasts, the log of a
// database that is written to cannot be begun anew, and grows.
func Backup(ctx context.Context, from, to string, progress func(done, total int64)) error {
	src, err := openToRead(from)
	if err != nil {
		return explain(from, err)
	}
	defer func() { _ = src.Close() }()
	// Within a transaction of its own the source stays as it is at this moment, and the
	// copy need not begin anew with every commit of the server's.
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
	// Nobody sees the copy before it is whole: a journal and syncs are for nothing.
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

// syncPath makes a file that was written by others durable.
func syncPath(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// filesSince is the schema from which on jobs may have files.
const filesSchema = 2

// Files calls each for every job of the database at path that has files and was not
// deleted, as it is at one moment. The database may be in use: then each is to be quick.
func Files(path string, each func(o job.Owner, id job.ID, files []job.File) error) error {
	conn, err := openToRead(path)
	if err != nil {
		return explain(path, err)
	}
	defer func() { _ = conn.Close() }()
	if version, err := pragma(conn, "user_version"); err != nil || version < filesSchema {
		return err
	}
	q, err := prepare(conn, "SELECT id, extra, tenant, usr FROM jobs WHERE files > 0 AND deleted = 0")
	if err != nil {
		return err
	}
	return q.each(func(c column) error {
		id, x := c.id(0), extra{}
		if err := decode(c, 1, &x); err != nil {
			return fmt.Errorf("which files the job %s has cannot be read: %w", id, err)
		}
		return each(job.Owner{Tenant: c.text(2), User: c.text(3)}, id, x.Files)
	})
}
