package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// undoTenantMigration restores the lanes and indexes of waiting jobs as they were before migration
// 0009.
const undoTenantMigration = `
	UPDATE jobs SET lane = CASE state WHEN 2 THEN '' ELSE '+' || key END WHERE lane IS NOT NULL;
	DROP INDEX jobs_line; DROP INDEX jobs_due;
	CREATE INDEX jobs_line ON jobs (queue, lane, turn, n, key, priority) WHERE lane IS NOT NULL;
	CREATE INDEX jobs_due  ON jobs (due, queue, key) WHERE due IS NOT NULL;`

// Jobs that waited before the migration keep their order within their tenant.
func TestTenantMigrationKeepsOrder(t *testing.T) {
	t.Parallel()
	a := newBulkStore(t, Options{Unsynced: true})
	limits := map[string]job.Limits{"q": {KeyRunning: 2}}
	want := map[string][]job.ID{}
	b := store.NewBatch()
	b.Limits = limits
	for i := range 24 {
		tenant := []string{"", "", "t"}[i%3]
		j := job.Job{ID: job.NewID(), Owner: job.Owner{Tenant: tenant, User: "u"}, Queue: "q", Key: "k", Priority: 5, MaxAttempts: 1}
		b.Submits = append(b.Submits, &store.Submit{Job: j})
		want[tenant] = append(want[tenant], j.ID)
	}
	a.commit(b)
	migration, err := migrations.ReadFile("migrations/0009_tenants.sql")
	if err != nil {
		t.Fatal(err)
	}
	if err := sqlitex.ExecuteScript(a.conn, undoTenantMigration+string(migration), nil); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), a.path, Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for range 8 {
		claim := &store.Claim{Queue: "q", Worker: "w", LeaseFor: time.Minute, Tokens: []job.Token{job.NewToken(), job.NewToken()}}
		b := store.NewBatch()
		b.Limits, b.Claims = limits, []*store.Claim{claim}
		if err := store.Commit(t.Context(), s, b); err != nil {
			t.Fatal(err)
		}
		done := store.NewBatch()
		done.Limits = limits
		for _, c := range claim.Claimed {
			of := c.Job.Owner.Tenant
			if len(want[of]) == 0 || c.Job.ID != want[of][0] {
				t.Fatalf("a job of the tenant %q was claimed before an earlier one", of)
			}
			want[of] = want[of][1:]
			done.Finishes = append(done.Finishes, &store.Finish{Lease: c.Lease(), To: job.Succeeded})
		}
		if err := store.Commit(t.Context(), s, done); err != nil {
			t.Fatal(err)
		}
	}
	if len(want[""]) != 8 || len(want["t"]) != 0 {
		t.Errorf("after 16 claims %d and %d jobs are left, want 8 and 0, because tenants take turns", len(want[""]), len(want["t"]))
	}
}

// Migration 0009 reads the table of jobs twice and writes little.
func BenchmarkUpgradeToTenants(b *testing.B) {
	a := newBulkStore(b, Options{Unsynced: true})
	a.addEnded(200_000, 100)
	migration, err := migrations.ReadFile(filepath.Join("migrations", "0009_tenants.sql"))
	if err != nil {
		b.Fatal(err)
	}
	a.mu.Lock() // the vacuum uses the connection too
	defer a.mu.Unlock()
	for b.Loop() {
		if err := sqlitex.ExecuteScript(a.conn, undoTenantMigration, nil); err != nil {
			b.Fatal(err)
		}
		if err := sqlitex.ExecuteScript(a.conn, string(migration), nil); err != nil {
			b.Fatal(err)
		}
	}
}
