package sqlite

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// undoListMigration restores the schema before migration 0013.
const undoListMigration = `
	DROP INDEX jobs_listed; DROP INDEX jobs_keyed; DROP INDEX jobs_coded;
	ALTER TABLE jobs DROP COLUMN code;
	CREATE INDEX jobs_failed ON jobs (tenant, usr, id) WHERE state = 6;
	PRAGMA user_version = 12;`

// The jobs of an older database are listed by every filter, also one whose failure cannot be
// read. The log says that an update runs, because it takes a while.
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
	if err := sqlitex.ExecuteScript(d.conn, undoListMigration, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Store.Close(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s, err := Open(t.Context(), d.path, Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Clock: func() time.Time { return d.now }})
	if err != nil {
		t.Fatal(err)
	}
	d.Store = s
	if !strings.Contains(log.String(), "0013_lists") {
		t.Errorf("the log does not name the migration: %s", log.String())
	}
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
	for b.Loop() {
		b.StopTimer()
		if err := sqlitex.ExecuteScript(a.conn, undoListMigration, nil); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := migrate(a.conn, slog.New(slog.DiscardHandler)); err != nil {
			b.Fatal(err)
		}
	}
}
