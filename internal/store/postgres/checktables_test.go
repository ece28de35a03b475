package postgres

import (
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// tablesOf lists the tables of a schema.
func tablesOf(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "select relname::text from pg_class where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p') order by 1")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(names) < 20 {
		t.Fatal(names, err)
	}
	return names
}

// A new table needs a check: this test names those without one.
func TestCheckReadsEachTable(t *testing.T) {
	t.Parallel()
	all := loadQueues.sql + " " + loadMoves.sql
	for _, k := range append(checks, fileChecks...) {
		all += " " + k.sql
	}
	for _, table := range tablesOf(t, newDatabase(t).Connect(t)) {
		if table == "migrations" {
			continue // Status and Usable check it
		}
		if !regexp.MustCompile(`\b(from|join) ` + table + `\b`).MatchString(all) {
			t.Errorf("no check reads the table %s: add one to checks in check.go", table)
		}
	}
}

func TestCheckFilesFindsDefects(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	conn := d.db.Connect(t)
	found := func() (defects []string) {
		if err := CheckFiles(t.Context(), conn, func(defect string) { defects = append(defects, defect) }); err != nil {
			t.Fatal(err)
		}
		return defects
	}
	s := newSubmit(func(s *store.Submit) { s.Job.Files = []job.File{{Name: "a", Size: 3}} })
	d.apply(s)
	if got := found(); len(got) != 1 || got[0] != "the job with the number 1 has other files than are stored" {
		t.Errorf("without its file: %q", got)
	}
	id := [16]byte(s.Job.ID)
	for _, c := range []struct{ change, defect string }{
		{"insert into files (id, job, name, state, size, at) values ($1::uuid, $1::uuid, 'a', 1, 3, 0)", `the file "a" of the job`},
		{"insert into file_chunks (file, n, data) values ($1::uuid, 0, 'abc')", ""},
		{"delete from files where id = $1::uuid", "bytes belong to no file"},
	} {
		if _, err := conn.Exec(t.Context(), c.change, id); err != nil {
			t.Fatal(err)
		}
		got := found()
		matched := c.defect == "" && len(got) == 0
		for _, defect := range got {
			matched = matched || c.defect != "" && regexp.MustCompile(regexp.QuoteMeta(c.defect)).MatchString(defect)
		}
		if !matched {
			t.Errorf("%s: %q, want %q", c.change, got, c.defect)
		}
	}
}
