package sqlite

import (
	"testing"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// undoParkedMigration restores the lanes of parked jobs as they were before migration 0016, with the
// numbers that they had then.
const undoParkedMigration = `
	UPDATE jobs SET turn = n, lane = CASE WHEN lane >= '!' AND lane < '"' THEN '!' || tenant
		WHEN tenant = '' THEN '+' || key ELSE '-' || length(CAST(tenant AS BLOB)) || ':' || tenant || key END
	WHERE lane IS NOT NULL AND state = 3;`

// Jobs that were parked before the migration are queued in the order of their arrival, each with its
// resource. A damaged row stays parked as a job without a resource, and fails when it is claimed.
func TestParkedMigrationKeepsResources(t *testing.T) {
	t.Parallel()
	s := newBulkStore(t, Options{Unsynced: true})
	limits := map[string]job.Limits{"q": {KeyRunning: 1}}
	b := store.NewBatch()
	b.Limits = limits
	want := map[string][]job.ID{}
	for i := range 27 {
		tenant, key, resource := []string{"", "ü"}[i%2], "kéy", []string{"", "a", "b"}[i%3]
		j := job.Job{ID: job.NewID(), Owner: job.Owner{Tenant: tenant, User: "u"}, Queue: "q", Key: key, Resource: resource, Priority: 5, MaxAttempts: 1}
		b.Submits = append(b.Submits, &store.Submit{Job: j})
		line := tenant + resource
		want[line] = append(want[line], j.ID)
	}
	s.commit(b)
	migration, err := migrations.ReadFile("migrations/0016_parked_resources.sql")
	if err != nil {
		t.Fatal(err)
	}
	damage := "UPDATE jobs SET extra = '{' WHERE n = (SELECT max(n) FROM jobs);"
	if err := sqlitex.ExecuteScript(s.conn, undoParkedMigration+damage+string(migration), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), s.path, Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	damaged := b.Submits[26].Job
	line := damaged.Owner.Tenant + damaged.Resource
	want[line] = want[line][:len(want[line])-1]
	for range 40 {
		claim := &store.Claim{Queue: "q", Worker: "w", LeaseFor: time.Minute, Tokens: []job.Token{job.NewToken()}}
		b := store.NewBatch()
		b.Limits, b.Claims = limits, []*store.Claim{claim}
		if err := store.Commit(t.Context(), again, b); err != nil {
			t.Fatal(err)
		}
		for _, c := range claim.Claimed {
			line := c.Job.Owner.Tenant + c.Job.Resource
			if len(want[line]) == 0 || want[line][0] != c.Job.ID {
				t.Fatalf("of %q a job was claimed before an earlier one: %v, want %v", line, c.Job.ID, want[line])
			}
			want[line] = want[line][1:]
			end := store.NewBatch()
			end.Limits, end.Finishes = limits, []*store.Finish{{Lease: c.Lease(), To: job.Succeeded}}
			if err := store.Commit(t.Context(), again, end); err != nil {
				t.Fatal(err)
			}
		}
	}
	for line, left := range want {
		if len(left) > 0 {
			t.Errorf("of %q %d jobs were not claimed", line, len(left))
		}
	}
	if j, err := again.Job(t.Context(), damaged.Owner, damaged.ID); err != nil || j.State != job.Failed {
		t.Errorf("the job with a damaged row is %s: %v", j.State, err)
	}
}
