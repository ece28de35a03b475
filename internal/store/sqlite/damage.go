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

// ErrForeign is why a store refuses to open: the file is another program's.
var ErrForeign = errors.New("this is a database of another program")

// quickCheck is the size of the largest file that is read whole at a start after
// one that did not end well.
const maxQuickCheck = 64 << 20

// inspect looks at the file that is to be opened, before anything is written to it:
// whether it is a database, and ours, and, when it is small and was not closed by
// its last user, whether it is whole. A file that is missing or empty is none yet.
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
	if log, err := os.Stat(path + "-wal"); err == nil && log.Size() > 0 && info.Size() <= maxQuickCheck {
		return checkPages(conn, "PRAGMA quick_check(1)", func(string) {})
	}
	return nil
}

// openToRead opens a database of ours to read only. As little as one that cannot be
// written to, it changes nothing, not even when it is the last to close the file.
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

// checkHeader holds a file to the beginning that every SQLite file has.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 16)
	if _, err := io.ReadFull(f, head); err != nil || !bytes.Equal(head, []byte("SQLite format 3\x00")) {
		return fmt.Errorf("it does not begin as a database does: %w", store.ErrDamaged)
	}
	return nil
}

// checkOwner refuses a database that another program made, and one that a newer
// version of this program made. One without any table may have been ours.
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
	case owner != applicationID && (owner != 0 || tables > 0):
		return ErrForeign
	case owner == applicationID && version > 0 && tables == 0:
		return fmt.Errorf("its tables are gone: %w", store.ErrDamaged)
	}
	return checkVersion(version)
}

// checkVersion refuses the schema of a newer version of this program.
func checkVersion(version int64) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err == nil && version > int64(len(names)) {
		err = fmt.Errorf("%w (schema %d; this program knows %d): run that version, or begin with another data directory", ErrNewer, version, len(names))
	}
	return err
}

// checkPages lets SQLite look at every page and calls found for each defect.
func checkPages(conn *sqlite.Conn, how string, found func(defect string)) error {
	first := ""
	err := sqlitex.ExecuteTransient(conn, how, &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
		if line := stmt.ColumnText(0); line != "ok" {
			found(line)
			if first == "" {
				first = line
			}
		}
		return nil
	}})
	if err == nil && first != "" {
		err = fmt.Errorf("%s: %w", first, store.ErrDamaged)
	}
	return wrapDamage(err)
}

// Check reads all of the database at path, which may be in use, and calls found for
// each defect. Its error wraps [store.ErrDamaged] when there is one, and says what
// is to be done when the file cannot be used at all.
func Check(ctx context.Context, path string, found func(defect string)) error {
	conn, err := openToRead(path)
	if err != nil {
		return explain(path, err)
	}
	defer func() { _ = conn.Close() }()
	conn.SetInterrupt(ctx.Done())
	return checkPages(conn, "PRAGMA integrity_check(100)", found)
}

// damage marks an error of SQLite that says that what it reads cannot be what it wrote.
func wrapDamage(err error) error {
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultCorrupt, sqlite.ResultNotADB, sqlite.ResultFormat:
		if !errors.Is(err, store.ErrDamaged) {
			return fmt.Errorf("%w: %w", store.ErrDamaged, err)
		}
	}
	return err
}

// explain says what is to be done about a file that cannot be opened.
func explain(path string, err error) error {
	err = wrapDamage(err)
	advice := ""
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

// noRoom says of an error that the disk is full. SQLite has a word of its own for the
// memory that connections share, which is a file too.
func diskFull(err error) bool {
	code := sqlite.ErrCode(err)
	return code.ToPrimary() == sqlite.ResultFull || code == sqlite.ResultIOErrSHMSize ||
		errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// sound says whether what is on the disk can be trusted.
func (s *Store) trusted() bool { return !s.broken.Load() && !s.syncer.failed() }

// notice remembers an error that says that the file is damaged: from then on nothing
// is written to it.
func (s *Store) noteDamage(err error) error {
	err = wrapDamage(err)
	if errors.Is(err, store.ErrDamaged) {
		s.broken.Store(true)
	}
	return err
}
