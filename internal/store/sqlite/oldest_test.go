package sqlite

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

// A database of the first schema, with a job in each state, is upgraded whole: its jobs are listed,
// claimed whatever room there is, finished, retried and deleted, and its queues are counted.
func TestOldestDatabaseIsUpgraded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	conn, err := connect(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := applyMigration(conn, "migrations/0001_jobs.sql", 1); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2031, 5, 7, 11, 0, 0, 0, time.UTC)
	ids := map[job.State]job.ID{}
	policy := fmt.Sprintf("x'%x'", codec.EncodePolicy(job.Policy{Keep: job.DefaultKeep}))
	for n, state := range []job.State{job.Queued, job.Scheduled, job.Running, job.Succeeded, job.Failed, job.Cancelled, job.Expired} {
		id := job.NewID()
		ids[state] = id
		lease, failure, finished := "NULL", "NULL", "NULL"
		if state == job.Running {
			lease = fmt.Sprintf("x'%032x'", 7)
		}
		if state == job.Failed {
			failure = `CAST('{"code":"x","message":"m"}' AS BLOB)`
		}
		if state.Ended() {
			finished = fmt.Sprint(now.UnixMicro())
		}
		err := sqlitex.ExecuteScript(conn, fmt.Sprintf(`
			INSERT INTO jobs (n, id, tenant, usr, queue, key, priority, state, turn, attempt, max_attempts, created, run_at,
				finished, expires, lease, worker, lease_until, failure, policy)
			VALUES (%d, x'%x', '%s', '%s', 'q', 'k', 5, %d, %d, 1, 4, %d, %d, %s, %s + 3600000000, %s, 'w', %d, %s, %s);
			INSERT INTO inputs VALUES (%d, x'7b7d');`,
			n+1, id[:], testOwner.Tenant, testOwner.User, state, n, now.UnixMicro(), now.UnixMicro(), finished, finished, lease,
			now.Add(time.Minute).UnixMicro(), failure, policy, n+1), nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	err = sqlitex.ExecuteScript(conn, "INSERT INTO results VALUES (4, 'text/plain', x'6f6b'); INSERT INTO queues VALUES ('q', 1, 1, 0, 1, 1, 1, 1, 1, 0)", nil)
	if err == nil {
		err = migrate(conn, slog.New(slog.DiscardHandler))
	}
	if err == nil {
		err = conn.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	d := &harness{T: t, path: path, now: now.Add(time.Second)}
	d.open()
	defer func() { _ = d.Store.Close() }()

	for state, id := range ids {
		page, _, err := d.List(t.Context(), job.Filter{Owner: testOwner, Status: state, Limit: 10})
		if err != nil || len(page) != 1 || page[0].ID != id {
			t.Errorf("%d jobs are listed as %s, %v", len(page), state, err)
		}
	}
	k := "k"
	if page, _, err := d.List(t.Context(), job.Filter{Owner: testOwner, Key: &k, ErrorCode: "x", Limit: 10}); err != nil || len(page) != 1 || page[0].ID != ids[job.Failed] {
		t.Errorf("%d jobs are listed by key and code, %v", len(page), err)
	}
	if r, err := d.Result(t.Context(), testOwner, ids[job.Succeeded], 0, 10); err != nil || string(r.Body) != "ok" {
		t.Errorf("the result is %q, %v", r.Body, err)
	}
	d.apply(&store.Finish{Lease: job.Lease{Job: ids[job.Running], Token: job.Token{15: 7}}, To: job.Queued})
	d.apply(&store.Retry{Owner: testOwner, ID: ids[job.Failed]}, &store.Due{Limit: 10})
	b := store.NewBatch()
	b.Room = map[string]int{"m": 0}
	b.Add(newClaim(9))
	if err := store.Commit(t.Context(), d.Store, b); err != nil {
		t.Fatal(err)
	}
	if got := len(b.Claims[0].Claimed); got != 4 {
		t.Errorf("%d jobs were claimed, want 4", got)
	}
	for _, c := range b.Claims[0].Claimed {
		d.apply(&store.Finish{Lease: c.Lease(), To: job.Succeeded})
	}
	for _, id := range ids {
		d.apply(&store.Delete{Owner: testOwner, ID: id})
	}
	counts, err := d.Counts(t.Context())
	if c := counts["q"]; err != nil || c.Unfinished() != 0 {
		t.Errorf("the counts are %+v, %v", c, err)
	}
	if page, _, err := d.List(t.Context(), job.Filter{Owner: testOwner, Limit: 10}); err != nil || len(page) != 0 {
		t.Errorf("%d jobs are left, %v", len(page), err)
	}
}
