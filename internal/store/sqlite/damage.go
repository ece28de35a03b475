package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// ErrForeign reports that the file is a database of another program.
var ErrForeign = errors.New("this is a database of another program")

// maxQuickCheck is the size of the largest file that is checked completely at a start after an
// unclean end.
const maxQuickCheck = 64 << 20

// inspect checks the file before anything is written to it. The file must be our database. If it
// is small and was not closed cleanly, it must also be intact. A missing or empty file passes.
func inspect(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	conn, err := openToRead(path)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	// A log that is left means that the last process did not close the file.
	if log, err := os.Stat(path + "-wal"); err == nil && log.Size() > 0 && info.Size() <= maxQuickCheck {
		return checkPages(conn, "PRAGMA quick_check(1)", func(string) {})
	}
	return nil
}

// openToRead opens our database read-only, also without write permission. It changes nothing in
// the directory, not even when it is the last to close the file.
func openToRead(path string) (*sqlite.Conn, error) {
	if err := checkHeader(path); err != nil {
		return nil, err
	}
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadOnly)
	if err != nil {
		return nil, err
	}
	conn.SetBusyTimeout(busyTimeout)
	if err := checkOwner(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// checkHeader checks for the header of an SQLite file.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 16)
	if _, err := io.ReadFull(f, head); err != nil || !bytes.Equal(head, []byte("SQLite format 3\x00")) {
		return fmt.Errorf("it does not start with the header of a database: %w", store.ErrDamaged)
	}
	return nil
}

// checkOwner refuses a database of another program or of a newer version of this one. A
// database without any table counts as ours.
func checkOwner(conn *sqlite.Conn) error {
	owner, err := pragma(conn, "application_id")
	if err != nil {
		return err
	}
	version, err := pragma(conn, "user_version")
	if err != nil {
		return err
	}
	var tables int64
	err = sqlitex.ExecuteTransient(conn, "SELECT count(*) FROM sqlite_schema", &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error { tables = stmt.ColumnInt64(0); return nil },
	})
	switch {
	case err != nil:
		return err
	// An interrupted first opening of ours may leave a file without tables and owner.
	case owner != applicationID && (owner != 0 || tables > 0):
		return ErrForeign
	case owner == applicationID && version > 0 && tables == 0:
		return fmt.Errorf("its tables are gone: %w", store.ErrDamaged)
	}
	return checkVersion(version)
}

// checkVersion refuses a schema of a newer version of this program.
func checkVersion(version int64) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err == nil && version > int64(len(names)) {
		err = fmt.Errorf("%w (schema %d; this program knows %d): run that version, or begin with another data directory", ErrNewer, version, len(names))
	}
	return err
}

// checkPages runs a check of SQLite and calls found for each defect.
func checkPages(conn *sqlite.Conn, how string, found func(defect string)) error {
	first := ""
	err := sqlitex.ExecuteTransient(conn, how, &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
		if defect := stmt.ColumnText(0); defect != "ok" {
			found(defect)
			if first == "" {
				first = defect
			}
		}
		return nil
	}})
	if err == nil && first != "" {
		err = fmt.Errorf("%s: %w", first, store.ErrDamaged)
	}
	return wrapDamage(err)
}

// Check reads all of the database at path, which may be in use, and calls found for each
// defect. With a defect its error wraps [store.ErrDamaged]. If the file cannot be used, the
// error says what to do.
func Check(ctx context.Context, path string, found func(defect string)) error {
	conn, err := openToRead(path)
	if err != nil {
		return explain(path, err)
	}
	defer func() { _ = conn.Close() }()
	conn.SetInterrupt(ctx.Done())
	return checkPages(conn, "PRAGMA integrity_check(100)", found)
}

// wrapDamage wraps an error of SQLite in [store.ErrDamaged] if it reports damage.
func wrapDamage(err error) error {
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultCorrupt, sqlite.ResultNotADB, sqlite.ResultFormat:
		if !errors.Is(err, store.ErrDamaged) {
			return fmt.Errorf("%w: %w", store.ErrDamaged, err)
		}
	}
	return err
}

// explain adds advice to an error of an opening.
func explain(path string, err error) error {
	err = wrapDamage(err)
	var advice string
	switch code := sqlite.ErrCode(err).ToPrimary(); {
	case errors.Is(err, store.ErrDamaged):
		advice = "put a backup in the place of its data directory, or begin with another one"
	case errors.Is(err, ErrForeign):
		advice = "begin with another data directory"
	case code == sqlite.ResultReadOnly, code == sqlite.ResultCantOpen, code == sqlite.ResultPerm, errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		advice = "make the file and its directory writable for the user that the server runs as"
	case diskFull(err):
		return fmt.Errorf("open %s: %w: %w", path, err, store.ErrFull)
	case code == sqlite.ResultBusy, code == sqlite.ResultLocked:
		advice = "another program holds the file: let it end"
	default:
		return fmt.Errorf("open %s: %w", path, err)
	}
	return fmt.Errorf("open %s: %w; %s", path, err, advice)
}

// diskFull reports whether an error means that the disk is full. SQLite has a separate code for
// the shared memory of connections, which is a file too.
func diskFull(err error) bool {
	code := sqlite.ErrCode(err)
	return code.ToPrimary() == sqlite.ResultFull || code == sqlite.ResultIOErrSHMSize ||
		errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// trusted reports whether the files contain all that was written, without damage.
func (s *Store) trusted() bool { return !s.broken.Load() && !s.syncer.failed() }

// noteDamage remembers an error that reports damage: nothing is written to the file after it.
func (s *Store) noteDamage(err error) error {
	err = wrapDamage(err)
	if errors.Is(err, store.ErrDamaged) {
		s.broken.Store(true)
	}
	return err
}
