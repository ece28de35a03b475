package sqlite

import (
	"os"
	"testing"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// The migration counts what owners of an older database keep as the program itself does.
func TestOwnersMigrationCountsAsTheProgram(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	for _, user := range []string{"a", "b"} {
		owner := job.Owner{Tenant: "t", User: user}
		row := store.Row{Owner: owner, Kind: "k", Parent: "p", ID: user, Body: []byte("größer")}
		d.apply(&store.Write{Rows: []store.Row{row}})
		id := d.submit(func(s *store.Submit) {
			s.Job.Owner, s.Idempotency = owner, &store.Idempotency{Key: "k", Keep: time.Hour}
		})
		d.apply(&store.Delete{Owner: owner, ID: id})
	}
	want, err := d.Kept(t.Context())
	if err != nil || want.Bytes != 2*(ops.RowBytes+8+ops.DeleteBytes+ops.LeftoverBytes) {
		t.Fatalf("%+v, %v", want, err)
	}
	script, err := migrations.ReadFile("migrations/0015_owners.sql")
	if err == nil {
		err = sqlitex.ExecuteScript(d.conn, "DROP TABLE owners;"+string(script), nil)
	}
	if got, _ := d.Kept(t.Context()); err != nil || got != want {
		t.Errorf("after the migration %+v, %v, want %+v", got, err, want)
	}
}

// CheckKept compares the stored sums of what owners keep with what the database at path has. A
// difference would stay for good, and shut its owner out in the end.
func CheckKept(tb testing.TB, path string) {
	tb.Helper()
	if _, err := os.Stat(path); err != nil {
		return // the test has removed it
	}
	conn, err := openToRead(path)
	if err != nil {
		tb.Error(err)
		return
	}
	defer conn.Close()
	err = newQuery(conn, `SELECT tenant, usr, sum(bytes) FROM (
		SELECT tenant, usr, `+plainLength+` + 100 AS bytes FROM records
		UNION ALL SELECT tenant, usr, 100 FROM deleted
		UNION ALL SELECT tenant, usr, 300 FROM leftovers
		UNION ALL SELECT tenant, usr, -bytes FROM owners)
		GROUP BY tenant, usr HAVING sum(bytes) <> 0`).each(func(c column) error {
		tb.Errorf("of tenant %q and user %q, %d bytes more are stored than the sum says", c.text(0), c.text(1), c.int(2))
		return nil
	})
	if err != nil {
		tb.Error(err)
	}
}
