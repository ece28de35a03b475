package move

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	zombiezen "zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// rowsOf counts the rows of each table of a SQLite database.
func rowsOf(t *testing.T, path string) map[string]int64 {
	t.Helper()
	conn, err := zombiezen.OpenConn(path, zombiezen.OpenReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	rows := map[string]int64{}
	query := func(sql string, each func(*zombiezen.Stmt)) {
		err := sqlitex.ExecuteTransient(conn, sql, &sqlitex.ExecOptions{ResultFunc: func(s *zombiezen.Stmt) error { each(s); return nil }})
		if err != nil {
			t.Fatal(err)
		}
	}
	query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'", func(s *zombiezen.Stmt) { rows[s.ColumnText(0)] = 0 })
	for table := range rows {
		query("SELECT count(*) FROM "+table, func(s *zombiezen.Stmt) { rows[table] = s.ColumnInt64(0) })
	}
	return rows
}

// A new table of SQLite must be moved, and a backup must have it. The installation of the tests
// needs rows in it, so that both are tested.
func TestMoveAndBackupNameEachTableOfSQLite(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, 3, 500)
	rows := rowsOf(t, in.path())
	for table, n := range rows {
		if sqliteTables[table] == "" {
			t.Errorf("sqliteTables does not say how the table %s is moved", table)
		}
		if n == 0 {
			t.Errorf("newInstallation has no rows in the table %s", table)
		}
	}
	for table := range sqliteTables {
		if _, exists := rows[table]; !exists {
			t.Errorf("sqliteTables has the table %s, which does not exist", table)
		}
	}
	to := filepath.Join(t.TempDir(), "copy.db")
	if err := sqlite.Backup(context.Background(), in.path(), to, func(_, _ int64) {}); err != nil {
		t.Fatal(err)
	}
	for table, n := range rowsOf(t, to) {
		if n != rows[table] {
			t.Errorf("a backup has %d rows of the table %s, want %d", n, table, rows[table])
		}
	}
}

func TestMoveNamesEachTableOfPostgres(t *testing.T) {
	t.Parallel()
	rows, err := newDatabase(t).Connect(t).Query(t.Context(), "select relname::text from pg_class where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p')")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range names {
		if postgresTables[table] == "" {
			t.Errorf("postgresTables does not say from what a move fills the table %s", table)
		}
	}
	if len(names) != len(postgresTables) {
		t.Errorf("there are %d tables, and postgresTables has %d", len(names), len(postgresTables))
	}
}

// sqliteTables says what becomes of each table of the source. A test fails for a table that it
// does not name.
var sqliteTables = map[string]string{
	"jobs":        "jobs and ended",
	"inputs":      "inputs",
	"results":     "results",
	"output":      "output, one row an entry",
	"tail":        "output, and the progress of running jobs",
	"running":     "nothing: the state of a job says whether it runs",
	"presence":    "presence",
	"with_files":  "with_files, from the jobs",
	"idempotency": "idempotency",
	"leftovers":   "leftovers",
	"deleted":     "deleted",
	"records":     "records",
	"owners":      "owners",
	"tallies":     "tallies",
	"queues":      "queues",
	"applied":     "applied and fold",
	"created":     "created",
}

// postgresTables says from what a move fills each table of the database.
var postgresTables = map[string]string{
	"jobs": "jobs", "ended": "jobs", "inputs": "inputs", "results": "results", "output": "output and tail", "with_files": "jobs",
	"presence": "presence", "idempotency": "idempotency", "leftovers": "leftovers", "deleted": "deleted", "records": "records",
	"owners": "owners", "tallies": "tallies", "queues": "queues", "created": "created", "applied": "applied",
	"fold":        "applied, and the sum of all sizes",
	"moves":       "nothing: a gap that lets open stores load again",
	"files":       "the directory of files",
	"file_chunks": "the directory of files",
	"token_keys":  "the file of keys",
	"inbox":       "nothing: a directory has none", "inbox_refused": "nothing: a directory has none",
	"imports":    "nothing: it is the state of the move",
	"migrations": "nothing: they make the schema",
}
