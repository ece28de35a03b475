package sqlite

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// undoListMigration restores the schema before migration 0013.
const undoListMigration = `
	DROP INDEX jobs_listed; DROP INDEX jobs_keyed; DROP INDEX jobs_coded;
	ALTER TABLE jobs DROP COLUMN code;
	CREATE INDEX jobs_failed ON jobs (tenant, usr, id) WHERE state = 6;`

// The jobs of an older database are listed by every filter, also one whose failure cannot be
// read.
func TestListMigrationIndexesOldJobs(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	failed, lease := d.running(func(s *store.Submit) { s.Job.Key = "k" })
	d.apply(&store.Finish{Lease: lease, To: job.Failed, Failure: &job.Failure{Code: "x"}})
	damaged, lease := d.running()
	d.apply(&store.Finish{Lease: lease, To: job.Failed, Failure: &job.Failure{Code: "x"}})
	waiting, lease := d.running()
	d.apply(&store.Finish{Lease: lease, To: job.Scheduled, Delay: time.Hour, Failure: &job.Failure{Code: "x"}})
	running, _ := d.running()
	d.spoil("failure", damaged)
	if err := sqlitex.ExecuteScript(d.conn, undoListMigration+listMigration(t), nil); err != nil {
		t.Fatal(err)
	}
	d.reopenWith(nil)
	k := "k"
	for name, c := range map[string]struct {
		f    job.Filter
		want []job.ID
	}{
		"code":    {job.Filter{ErrorCode: "x"}, []job.ID{waiting, failed}},
		"key":     {job.Filter{Key: &k}, []job.ID{failed}},
		"status":  {job.Filter{Status: job.Scheduled}, []job.ID{waiting}},
		"running": {job.Filter{Status: job.Running}, []job.ID{running}},
	} {
		c.f.Owner, c.f.Limit = testOwner, 10
		page, _, err := d.List(t.Context(), c.f)
		if err != nil || len(page) != len(c.want) {
			t.Fatalf("%s: %d jobs, %v", name, len(page), err)
		}
		for i := range page {
			if page[i].ID != c.want[i] {
				t.Errorf("%s: %s is listed, want %s", name, page[i].ID, c.want[i])
			}
		}
	}
}

// Migration 0013 builds three indexes.
func BenchmarkUpgradeToLists(b *testing.B) {
	a := newBulkStore(b, Options{Unsynced: true})
	a.addListed(1_000_000, job.Owner{User: "u"}, listedRow)
	a.mu.Lock() // the vacuum uses the connection too
	defer a.mu.Unlock()
	for b.Loop() {
		b.StopTimer()
		if err := sqlitex.ExecuteScript(a.conn, undoListMigration, nil); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := sqlitex.ExecuteScript(a.conn, listMigration(b), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func listMigration(tb testing.TB) string {
	tb.Helper()
	script, err := migrations.ReadFile("migrations/0013_lists.sql")
	if err != nil {
		tb.Fatal(err)
	}
	return string(script)
}

// An update of an older database is logged, because it may take a while. A new database is not
// an update.
func TestUpdatesAreLogged(t *testing.T) {
	t.Parallel()
	conn, err := sqlite.OpenConn(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var log bytes.Buffer
	to := slog.New(slog.NewTextHandler(&log, nil))
	if err := migrate(conn, to); err != nil || log.Len() > 0 {
		t.Fatalf("a new database: %v, %s", err, &log)
	}
	if err := sqlitex.ExecuteScript(conn, "DROP TABLE owners; PRAGMA user_version = 14;", nil); err != nil {
		t.Fatal(err)
	}
	if err := migrate(conn, to); err != nil || !strings.Contains(log.String(), "0015_owners") {
		t.Errorf("an update: %v, %s", err, &log)
	}
}
