package sqlite

import (
	"testing"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
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
	if err != nil || want.Bytes != 2*(rowBytes+8+deleteBytes+leftoverBytes) {
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
