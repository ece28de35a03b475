package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNewer means that a newer version of the program has changed the database in a way that
// this version cannot work with.
var ErrNewer = errors.New("postgres: the database belongs to a newer version")

// ErrPending means that the database lacks migrations that this version of the program needs.
var ErrPending = errors.New("postgres: migrations are pending")

var errNoSchema = errors.New("postgres: no schema in the connection's search_path exists; create it, or set search_path")

// Migration is a step of the database's schema.
type Migration struct {
	Number  int
	Name    string
	Applied time.Time // by the database's clock; zero while the migration is pending
	// MinVersion is the oldest version that can work with the database after this migration. A
	// version of the schema is the number of the last migration that a program has.
	MinVersion int
	// Unknown is true for an applied migration that this version of the program does not have.
	Unknown bool

	up, down string // down is "" when the migration cannot be taken back
}

// Beginner starts transactions: a connection or a pool. It may be behind a transaction pooler.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Migrations returns the migrations of this version of the program, in their order.
func Migrations() []Migration {
	list, err := readMigrations()
	if err != nil {
		panic(err) // the files are part of the program, and a test reads them
	}
	return list
}

// readMigrations reads the files NUMBER_NAME.sql, numbered without gaps from 1, and
// NUMBER_NAME.down.sql for those that can be taken back.
func readMigrations() (list []Migration, err error) {
	files, err := migrationFiles.ReadDir("migrations")
	if err != nil {
		return nil, err
	}
	downs := map[string]string{}
	for _, f := range files { // in the order of their names
		raw, err := migrationFiles.ReadFile("migrations/" + f.Name())
		if err != nil {
			return nil, err
		}
		base := strings.TrimSuffix(f.Name(), ".sql")
		if up, isDown := strings.CutSuffix(base, ".down"); isDown {
			downs[up] = string(raw)
			continue
		}
		m := Migration{up: string(raw)}
		number, name, _ := strings.Cut(base, "_")
		m.Name = name
		if m.Number, err = strconv.Atoi(number); err != nil || m.Number != len(list)+1 {
			return nil, fmt.Errorf("postgres: the migration %s should have the number %d", f.Name(), len(list)+1)
		}
		if _, err := fmt.Sscanf(m.up, "-- compatible with: %d\n", &m.MinVersion); err != nil || m.MinVersion < 1 || m.MinVersion > m.Number {
			return nil, fmt.Errorf("postgres: the migration %s does not begin with the oldest version that is compatible with it", f.Name())
		}
		list = append(list, m)
	}
	for i := range list {
		list[i].down = downs[fmt.Sprintf("%04d_%s", list[i].Number, list[i].Name)]
	}
	return list, nil
}

// Status lists all migrations: those that are applied, then those that are pending. It changes
// nothing.
func Status(ctx context.Context, db Beginner) ([]Migration, error) {
	tx, err := db.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	return readStatus(ctx, tx, Migrations())
}

// Usable returns why this version of the program cannot use a database with these migrations:
// an error that wraps [ErrNewer] or [ErrPending]. Nil when it can.
func Usable(status []Migration) error {
	last, known := 0, 0
	for i := range status {
		m := &status[i]
		switch {
		case m.Unknown:
			last = max(last, m.MinVersion)
		case m.Applied.IsZero():
			return fmt.Errorf("%w: the database lacks the migration %d (%s); run \"meanwhile migrate up\"", ErrPending, m.Number, m.Name)
		default:
			known = m.Number
		}
	}
	if last > known {
		return fmt.Errorf("%w: it needs version %d of the schema and this program has version %d; use the newer program",
			ErrNewer, last, known)
	}
	return nil
}

// Up applies all pending migrations, each in a transaction of its own, and returns those that it
// applied. Any number of processes may call it at the same time.
func Up(ctx context.Context, db Beginner) (applied []Migration, err error) {
	return up(ctx, db, Migrations())
}

func up(ctx context.Context, db Beginner, known []Migration) (applied []Migration, err error) {
	for {
		more := false
		err := locked(ctx, db, func(tx pgx.Tx) error {
			status, err := readStatus(ctx, tx, known)
			if err != nil {
				return err
			}
			for i := range status {
				if m := &status[i]; m.Applied.IsZero() {
					more = true
					applied = append(applied, *m)
					return m.apply(ctx, tx)
				}
			}
			return Usable(status)
		})
		if err != nil && more {
			return applied[:len(applied)-1], err
		}
		if err != nil || !more {
			return applied, err
		}
	}
}

// Down takes back the migrations after the one with the number to, the newest first, and returns
// those that it took back. It refuses a step that would lose jobs. Stop all servers before it.
func Down(ctx context.Context, db Beginner, to int) (undone []Migration, err error) {
	return down(ctx, db, Migrations(), to)
}

func down(ctx context.Context, db Beginner, known []Migration, to int) (undone []Migration, err error) {
	for {
		var last *Migration
		err := locked(ctx, db, func(tx pgx.Tx) error {
			status, err := readStatus(ctx, tx, known)
			if err != nil {
				return err
			}
			for i := range status {
				if m := &status[i]; !m.Applied.IsZero() && m.Number > to {
					last = m
				}
			}
			if last == nil {
				return nil
			}
			return last.undo(ctx, tx)
		})
		if err != nil || last == nil {
			return undone, err
		}
		undone = append(undone, *last)
	}
}

// apply applies a migration and records it.
func (m *Migration) apply(ctx context.Context, tx pgx.Tx) error {
	if err := runScript(ctx, tx, m.up); err != nil {
		return fmt.Errorf("postgres: the migration %d (%s) failed and changed nothing: %w", m.Number, m.Name, err)
	}
	_, err := tx.Exec(ctx, "insert into migrations (number, name, min_version) values ($1, $2, $3)",
		pgx.QueryExecModeExec, m.Number, m.Name, m.MinVersion)
	return err
}

// undo takes a migration back and deletes its record.
func (m *Migration) undo(ctx context.Context, tx pgx.Tx) error {
	switch {
	case m.Unknown:
		return fmt.Errorf("%w: the migration %d (%s) can only be taken back by the version of the program that applied it",
			ErrNewer, m.Number, m.Name)
	case m.down == "":
		return fmt.Errorf("postgres: the migration %d (%s) cannot be taken back without losing data; "+
			"restore a backup from before it", m.Number, m.Name)
	}
	if err := runScript(ctx, tx, m.down); err != nil {
		return fmt.Errorf("postgres: the migration %d (%s) could not be taken back, and nothing was changed: %w", m.Number, m.Name, err)
	}
	_, err := tx.Exec(ctx, "delete from migrations where number = $1", pgx.QueryExecModeExec, m.Number)
	return err
}

// runScript runs the statements of a file.
func runScript(ctx context.Context, tx pgx.Tx, sql string) error {
	_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// readStatus lists the applied migrations, then the pending ones of known.
func readStatus(ctx context.Context, tx pgx.Tx, known []Migration) (list []Migration, err error) {
	var schema, exists bool
	const tables = "select current_schema() is not null, to_regclass('migrations') is not null"
	if err := tx.QueryRow(ctx, tables, pgx.QueryExecModeExec).Scan(&schema, &exists); err != nil {
		return nil, err
	}
	if !schema {
		return nil, errNoSchema
	}
	if exists {
		rows, err := tx.Query(ctx, "select number, name, applied, min_version from migrations order by number", pgx.QueryExecModeExec)
		if err != nil {
			return nil, err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (m Migration, err error) {
			err = row.Scan(&m.Number, &m.Name, &m.Applied, &m.MinVersion)
			return m, err
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range list {
		m := &list[i]
		if m.Unknown = m.Number > len(known); !m.Unknown {
			m.up, m.down = known[m.Number-1].up, known[m.Number-1].down
		}
	}
	if len(list) < len(known) {
		list = append(list, known[len(list):]...)
	}
	return list, nil
}

// migrationLock is the class of the advisory lock that a migration holds. The object is the
// schema, so that installations in several schemas of a database do not wait for each other.
const migrationLock = 0x6d77_6d67

// locked calls f in a transaction that holds the lock of migrations. The lock belongs to the
// transaction, so it needs no session: a transaction pooler may be in between. It is polled,
// because a transaction that waits for a lock would block an index that is built concurrently.
func locked(ctx context.Context, db Beginner, f func(pgx.Tx) error) error {
	for {
		done, err := tryLocked(ctx, db, f)
		if done || err != nil {
			return err
		}
		wait := time.NewTimer(50*time.Millisecond + rand.N(100*time.Millisecond))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("postgres: another process migrates the database: %w", ctx.Err())
		}
	}
}

// tryLocked calls f if the lock is free, and reports whether it did.
func tryLocked(ctx context.Context, db Beginner, f func(pgx.Tx) error) (done bool, err error) {
	tx, err := db.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	const lock = "select pg_try_advisory_xact_lock($1, oid::bigint::bit(32)::int) from pg_namespace where nspname = current_schema()"
	var free bool
	err = tx.QueryRow(ctx, lock, pgx.QueryExecModeExec, migrationLock).Scan(&free)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNoSchema
	}
	if err != nil || !free {
		return false, err
	}
	const table = `create table if not exists migrations (
		number integer not null primary key, name text not null, applied timestamptz not null default now(), min_version integer not null)`
	if _, err := tx.Exec(ctx, table, pgx.QueryExecModeExec); err != nil {
		return false, err
	}
	if err := f(tx); err != nil {
		return false, err
	}
	return true, tx.Commit(ctx)
}
