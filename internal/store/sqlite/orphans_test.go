package sqlite

import (
	"slices"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// jobTables returns the tables with rows of jobs, or with rows that outlive jobs for a while.
func (d *harness) jobTables() (tables []string) {
	d.Helper()
	err := sqlitex.ExecuteTransient(d.conn, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'", &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error {
			if name := stmt.ColumnText(0); !slices.Contains([]string{"applied", "created", "queues", "records"}, name) {
				tables = append(tables, name)
			}
			return nil
		},
	})
	if err != nil || len(tables) < 10 {
		d.Fatalf("the tables are %v: %v", tables, err)
	}
	return tables
}

// addRowsInEveryTable gives a job a row in every table in which a job can have one.
func addRowsInEveryTable(s *store.Submit) {
	s.Job.Files = []job.File{{Name: "a", Size: 1}}
	s.Idempotency = &store.Idempotency{Key: s.Job.ID.String(), Keep: time.Hour}
}

// addJobsInEveryState creates jobs in every state, with addRowsInEveryTable. Jobs that run or
// have run have output in the log and in the tail.
func (d *harness) addJobsInEveryState() (ids []job.ID) {
	d.Helper()
	add := func(edits ...func(*store.Submit)) job.ID {
		id := d.submit(append(edits, addRowsInEveryTable)...)
		ids = append(ids, id)
		return id
	}
	run := func(edits ...func(*store.Submit)) job.Lease {
		token := job.NewToken()
		id := add(append(edits, func(s *store.Submit) { s.Token, s.LeaseFor, s.Worker = token, time.Minute, "w" })...)
		s := &producer{d: d, lease: job.Lease{Job: id, Token: token}, attempt: 1}
		s.appendText(string(make([]byte, fullBlock)))
		s.appendText("a few words")
		return s.lease
	}
	add(func(s *store.Submit) { s.Delay = time.Minute })
	add(func(s *store.Submit) { s.Delay = time.Minute; s.Job.Policy.Timeouts.Queue = time.Minute })
	add()
	run()
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Scheduled, job.Queued} {
		f := &store.Finish{Lease: run(), To: to, Delay: time.Minute}
		if to == job.Succeeded {
			f.Result = &job.Result{ContentType: "text/plain", Body: []byte("result")}
		}
		d.apply(f)
	}
	cancelled := add()
	d.apply(&store.Cancel{Owner: testOwner, ID: cancelled})
	run()
	add(func(s *store.Submit) { s.Job.Policy.Timeouts.Queue = time.Second })
	d.now = d.now.Add(2 * time.Second)
	d.apply(&store.Due{Limit: 100})
	return ids
}

// endAll cancels all running jobs.
func (d *harness) endAll() {
	d.Helper()
	running, err := d.Running(d.Context(), store.AllRunning, job.ID{}, 100)
	if err != nil {
		d.Fatal(err)
	}
	for i := range running {
		d.apply(&store.Finish{Lease: job.Lease{Job: running[i].Job.ID, Token: running[i].Token}, To: job.Cancelled})
	}
}

// No way of removing a job leaves a row of it in any table.
func TestRemoveDeletesAllRowsOfJob(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(d *harness, ids []job.ID){
		"deleted": func(d *harness, ids []job.ID) {
			for _, id := range ids {
				d.apply(&store.Delete{Owner: testOwner, ID: id})
			}
			d.endAll()
		},
		"deleted after their end": func(d *harness, ids []job.ID) {
			d.endAll()
			for _, id := range ids {
				d.apply(&store.Delete{Owner: testOwner, ID: id})
			}
		},
		"deleted while they ran, with an opening before their end": func(d *harness, ids []job.ID) {
			for _, id := range ids {
				d.apply(&store.Delete{Owner: testOwner, ID: id})
			}
			_ = d.Store.Close()
			d.open()
			d.endAll()
		},
		"deleted while they ran, with damaged rows": func(d *harness, ids []job.ID) {
			for _, id := range ids {
				d.apply(&store.Delete{Owner: testOwner, ID: id})
			}
			d.spoil("extra", ids...)
			_ = d.Store.Close()
			d.open()
			d.apply()
		},
		"pruned": func(d *harness, ids []job.ID) {
			for _, id := range ids {
				d.apply(&store.Cancel{Owner: testOwner, ID: id})
			}
			d.endAll()
			d.now = d.now.Add(2 * time.Hour)
			d.apply(&store.Prune{Limit: 1000})
		},
		"pruned before their time": func(d *harness, ids []job.ID) {
			for _, id := range ids {
				d.apply(&store.Cancel{Owner: testOwner, ID: id})
			}
			d.endAll()
			d.apply(&store.Prune{Limit: 1000, Early: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newHarness(t)
			ids := d.addJobsInEveryState()
			for _, table := range []string{"jobs", "inputs", "results", "output", "idempotency", "running", "with_files", "presence", "tail"} {
				if d.count("SELECT count(*) FROM "+table) == 0 {
					t.Fatalf("no job has a row in %s", table)
				}
			}
			remove(d, ids)
			d.now = d.now.Add(2 * store.KeepDeletes)
			d.apply(&store.Prune{Limit: 1000}) // deletes the rows that outlive their jobs for a while
			for _, table := range d.jobTables() {
				if n := d.count("SELECT count(*) FROM " + table); n > 0 && table != "tail" {
					t.Errorf("%s has %d rows", table, n)
				}
			}
			_ = d.Store.Close()
			d.open()
			if n := d.count("SELECT count(*) FROM tail"); n > 0 {
				t.Errorf("after an opening the tail has %d rows", n)
			}
		})
	}
}

// Open deletes rows that an older version left of removed jobs.
func TestOpenRemovesOrphans(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	s := d.newProducer()
	s.appendText("still here")
	err := sqlitex.ExecuteScript(d.conn, `INSERT INTO tail (job, seq, total, data) VALUES (1000, 1, 1, x'00');
		INSERT INTO presence VALUES (x'00', 1000, '', '', 1, 1); INSERT INTO with_files VALUES (1000, x'00')`, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = d.Store.Close()
	d.open()
	for table, column := range map[string]string{"tail": "job", "presence": "n", "with_files": "n"} {
		if n := d.count("SELECT count(*) FROM " + table + " WHERE " + column + " = 1000"); n > 0 {
			t.Errorf("%s has %d rows of the job %d, which does not exist", table, n, 1000)
		}
	}
	s.check(t, 0, 1<<20)
}

// A row number is never reused, not even after a delete, an opening or a failed commit.
func TestRowNumbersAreNeverReused(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	highest := func() int64 { return d.count("SELECT max(n) FROM jobs") }
	last := int64(0)
	for i, load := range []func(){
		func() {},
		func() { _ = d.Store.Close(); d.open() },
		func() { d.Store.staleMemory = true },
		func() { _ = d.Store.Close(); d.open(); d.Store.staleMemory = true },
	} {
		id := d.submit()
		if n := highest(); n <= last {
			t.Errorf("round %d: a job has the row number %d, after %d", i, n, last)
		}
		last = highest()
		d.apply(&store.Delete{Owner: testOwner, ID: id})
		load()
	}
}
