package sqlite

import (
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// In an older database, the id of a job with files may be much older than its creation.
func TestMigrationFindsLargestIDSkew(t *testing.T) {
	t.Parallel()
	for _, upload := range []time.Duration{-1, time.Minute, 5 * time.Hour} {
		conn, err := sqlite.OpenConn(":memory:")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		script := func(name string) {
			text, err := migrations.ReadFile("migrations/" + name)
			if err == nil {
				err = sqlitex.ExecuteScript(conn, string(text), nil)
			}
			if err != nil {
				t.Fatal(name, err)
			}
		}
		for _, name := range []string{"0001_jobs.sql", "0002_core.sql"} {
			script(name)
		}
		if upload >= 0 {
			id := job.NewID()
			err := sqlitex.Execute(conn, `INSERT INTO jobs (n, id, tenant, usr, queue, key, priority, state, turn, attempt, max_attempts, created, run_at, policy)
				VALUES (1, ?, '', '', 'q', '', 5, 5, 0, 0, 1, ?, 0, x'')`, &sqlitex.ExecOptions{Args: []any{id[:], id.Time().Add(upload).UnixMicro()}})
			if err == nil {
				err = sqlitex.Execute(conn, `INSERT INTO with_files (n, id) VALUES (1, ?)`, &sqlitex.ExecOptions{Args: []any{id[:]}})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		script("0010_created.sql")
		var skew int64
		err = sqlitex.Execute(conn, "SELECT apart FROM created", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			skew = s.ColumnInt64(0)
			return nil
		}})
		if want := max(time.Hour, upload).Microseconds(); err != nil || skew != want {
			t.Errorf("with an upload of %s the skew is %d, %v, want %d", upload, skew, err, want)
		}
	}
}

// A list by time finds a job however much the time in its id differs from its creation.
func TestListByTimeFindsAnyID(t *testing.T) {
	t.Parallel()
	for _, first := range []byte{0, 1, 7, 0x80, 0xff} {
		d := newHarness(t)
		id := job.NewID()
		id[0] = first
		d.submit(func(s *store.Submit) { s.Job.ID = id })
		for range 2 {
			page, _, err := d.List(d.Context(), job.Filter{Owner: testOwner, CreatedAfter: d.now.Add(-time.Hour), CreatedBefore: d.now.Add(time.Hour), Limit: 10})
			if err != nil || len(page) != 1 {
				t.Errorf("%x: %d jobs, %v", first, len(page), err)
			}
			d.reopenWith(nil)
		}
	}
}
