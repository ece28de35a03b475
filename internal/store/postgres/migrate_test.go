package postgres

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// numbered returns n migrations, of which each makes a table. The program that has them can work
// beside any older one.
func numbered(n int) (list []Migration) {
	for i := 1; i <= n; i++ {
		list = append(list, Migration{
			Number: i, Name: fmt.Sprint("table_", i), MinVersion: 1,
			up: fmt.Sprintf("create table t%d (); select 1", i), down: fmt.Sprintf("drop table t%d", i),
		})
	}
	return list
}

func wantTables(t *testing.T, conn *pgx.Conn, want string) {
	t.Helper()
	got := ""
	const tables = "select coalesce(string_agg(tablename, ' ' order by tablename), '') from pg_tables where schemaname = current_schema() and tablename like 't_'"
	if err := conn.QueryRow(t.Context(), tables).Scan(&got); err != nil || got != want {
		t.Errorf("the tables are %q (%v), want %q", got, err, want)
	}
}

func wantStatus(t *testing.T, db Beginner, known []Migration, want string) []Migration {
	t.Helper()
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	status, err := readStatus(t.Context(), tx, known)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range status {
		switch {
		case m.Applied.IsZero():
			got = append(got, fmt.Sprint(m.Number, " pending"))
		case m.Unknown:
			got = append(got, fmt.Sprint(m.Number, " unknown"))
		default:
			got = append(got, fmt.Sprint(m.Number))
		}
	}
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("the migrations are %q, want %q", text, want)
	}
	return status
}

func TestMigrationsAreNumberedAndCompatible(t *testing.T) {
	t.Parallel()
	if list, err := readMigrations(); err != nil || len(list) == 0 {
		t.Errorf("%d migrations, %v", len(list), err)
	}
}

func TestUpAppliesEachMigrationOnce(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t).Schema(t)
	conn := d.Connect(t)
	wantStatus(t, conn, numbered(2), "1 pending, 2 pending")
	applied, err := up(t.Context(), conn, numbered(2))
	if err != nil || len(applied) != 2 {
		t.Fatalf("%d migrations were applied: %v", len(applied), err)
	}
	wantTables(t, conn, "t1 t2")
	applied, err = up(t.Context(), conn, numbered(3))
	if err != nil || len(applied) != 1 || applied[0].Number != 3 {
		t.Fatalf("%d migrations were applied: %v", len(applied), err)
	}
	wantTables(t, conn, "t1 t2 t3")
	wantStatus(t, conn, numbered(3), "1, 2, 3")
}

func TestManyProcessesMigrateAtOnce(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t).Schema(t)
	config, err := pgxpool.ParseConfig(d.URL())
	if err != nil {
		t.Fatal(err)
	}
	// As behind a transaction pooler: statements are not prepared, and transactions share few
	// connections.
	config.MaxConns, config.ConnConfig.DefaultQueryExecMode = 3, pgx.QueryExecModeExec
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var processes sync.WaitGroup
	var applied [10]int
	for i := range applied {
		processes.Go(func() {
			done, err := up(t.Context(), pool, numbered(4))
			if applied[i] = len(done); err != nil {
				t.Errorf("process %d: %v", i, err)
			}
		})
	}
	processes.Wait()
	sum := 0
	for _, n := range applied {
		sum += n
	}
	if sum != 4 {
		t.Errorf("%d migrations were applied, want 4", sum)
	}
	wantStatus(t, pool, numbered(4), "1, 2, 3, 4")
}

func TestMigrationWaitsForAnotherProcess(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t).Schema(t)
	other, conn := d.Connect(t), d.Connect(t)
	err := locked(t.Context(), other, func(pgx.Tx) error {
		done, err := tryLocked(t.Context(), conn, func(pgx.Tx) error { return nil })
		if done {
			t.Error("two processes migrate at the same time")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if applied, err := up(t.Context(), conn, numbered(1)); err != nil || len(applied) != 1 {
		t.Errorf("%d migrations were applied after the other process: %v", len(applied), err)
	}
}

func TestFailedMigrationChangesNothing(t *testing.T) {
	t.Parallel()
	conn := pgtest.Shared(t).Schema(t).Connect(t)
	list := numbered(3)
	list[1].up += "; select 1 / 0"
	applied, err := up(t.Context(), conn, list)
	if err == nil || !strings.Contains(err.Error(), "the migration 2 (table_2) failed and changed nothing") || len(applied) != 1 {
		t.Errorf("%d migrations were applied: %v", len(applied), err)
	}
	wantTables(t, conn, "t1")
	wantStatus(t, conn, list, "1, 2 pending, 3 pending")
}

func TestProgramWorksBesideNewerSchemaThatIsCompatible(t *testing.T) {
	t.Parallel()
	conn := pgtest.Shared(t).Schema(t).Connect(t)
	newer := numbered(4)
	newer[3].MinVersion = 3
	if _, err := up(t.Context(), conn, newer[:3]); err != nil {
		t.Fatal(err)
	}
	if err := Usable(wantStatus(t, conn, newer[:2], "1, 2, 3 unknown")); err != nil {
		t.Errorf("a program of version 2 refuses a schema for version 1 and later: %v", err)
	}
	if err := Usable(wantStatus(t, conn, newer, "1, 2, 3, 4 pending")); !errors.Is(err, ErrPending) || !strings.Contains(err.Error(), "meanwhile migrate up") {
		t.Errorf("a database that lacks a migration: %v", err)
	}
	if _, err := up(t.Context(), conn, newer); err != nil {
		t.Fatal(err)
	}
	if err := Usable(wantStatus(t, conn, newer[:2], "1, 2, 3 unknown, 4 unknown")); !errors.Is(err, ErrNewer) {
		t.Errorf("a program of version 2 and a schema for version 3: %v", err)
	}
	if _, err := up(t.Context(), conn, newer[:2]); !errors.Is(err, ErrNewer) {
		t.Errorf("a program of version 2 migrates a schema for version 3: %v", err)
	}
	if err := Usable(wantStatus(t, conn, newer[:3], "1, 2, 3, 4 unknown")); err != nil {
		t.Errorf("a program of version 3 refuses a schema for version 3: %v", err)
	}
}

func TestDownTakesBackNewestFirst(t *testing.T) {
	t.Parallel()
	conn := pgtest.Shared(t).Schema(t).Connect(t)
	list := numbered(3)
	list[0].down = ""
	if _, err := up(t.Context(), conn, list); err != nil {
		t.Fatal(err)
	}
	if _, err := down(t.Context(), conn, list[:2], 0); !errors.Is(err, ErrNewer) {
		t.Errorf("a program takes back a migration that it does not have: %v", err)
	}
	undone, err := down(t.Context(), conn, list, 2)
	if err != nil || len(undone) != 1 || undone[0].Number != 3 {
		t.Errorf("%d migrations were taken back: %v", len(undone), err)
	}
	undone, err = down(t.Context(), conn, list, 0)
	if err == nil || !strings.Contains(err.Error(), "losing data") || len(undone) != 1 {
		t.Errorf("%d migrations were taken back, and the first, which has no way back: %v", len(undone), err)
	}
	wantTables(t, conn, "t1")
	wantStatus(t, conn, list, "1, 2 pending, 3 pending")
}

func TestFirstMigrationCannotBeTakenBack(t *testing.T) {
	t.Parallel()
	conn := pgtest.Shared(t).Schema(t).Connect(t)
	if _, err := Up(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	status, err := Status(t.Context(), conn)
	if err == nil {
		err = Usable(status)
	}
	if err != nil {
		t.Error(err)
	}
	if _, err := Down(t.Context(), conn, 0); err == nil || !strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("the first migration was taken back: %v", err)
	}
}

func TestMissingSchemaIsNamed(t *testing.T) {
	t.Parallel()
	conn := pgtest.Shared(t).Schema(t).Connect(t)
	if _, err := conn.Exec(t.Context(), "set search_path = nowhere"); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"status": func() error { _, err := Status(t.Context(), conn); return err },
		"up":     func() error { _, err := Up(t.Context(), conn); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "search_path") {
			t.Errorf("%s without a schema: %v", name, err)
		}
	}
}
