package sqlite

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// newDatabase returns the bytes of a new database.
var newDatabase = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "new")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "jobs.db")
	s, err := Open(context.Background(), path, Options{Unsynced: true})
	if err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// WriteNewDatabase writes a new database to path. Open would create the same file, but
// spends half of its time on migrations, and nearly every test opens its own database.
func WriteNewDatabase(tb testing.TB, path string) {
	tb.Helper()
	raw, err := newDatabase()
	if err == nil {
		err = os.WriteFile(path, raw, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// takeReader takes a reader with a connection. The caller gives it back.
func takeReader(tb testing.TB, p *readerPool) *reader {
	tb.Helper()
	r, err := p.take(tb.Context())
	if err == nil && r.conn == nil {
		err = r.connect()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// bulkStore is a store for tests with many jobs, with a clock that the test sets.
type bulkStore struct {
	*Store
	tb   testing.TB
	path string
	now  time.Time // set between commits only
}

func newBulkStore(tb testing.TB, o Options) *bulkStore {
	tb.Helper()
	a := &bulkStore{tb: tb, path: filepath.Join(tb.TempDir(), "jobs.db"), now: time.Unix(1_900_000_000, 0)}
	o.Clock = func() time.Time { return a.now }
	WriteNewDatabase(tb, a.path)
	s, err := Open(context.Background(), a.path, o)
	if err != nil {
		tb.Fatal(err)
	}
	a.Store = s
	tb.Cleanup(func() { _ = s.Close() })
	return a
}

func (a *bulkStore) commit(b *store.Batch) {
	a.tb.Helper()
	if err := store.Commit(context.Background(), a.Store, b); err != nil {
		a.tb.Fatal(err)
	}
}

// addEnded adds ended jobs. Each has an input, an entry of output and a result of size bytes.
func (a *bulkStore) addEnded(jobs, size int) {
	a.tb.Helper()
	body := bytes.Repeat([]byte("5"), size)
	for ; jobs > 0; jobs -= 250 {
		born, done := store.NewBatch(), store.NewBatch()
		for range min(jobs, 250) {
			j := job.Job{ID: job.NewID(), Owner: job.Owner{User: "u"}, Queue: "q", Priority: 5, MaxAttempts: 1}
			lease := job.Lease{Job: j.ID, Token: job.NewToken()}
			born.Submits = append(born.Submits, &store.Submit{Job: j, Input: body, Token: lease.Token, LeaseFor: time.Minute, Worker: "w"})
			done.Finishes = append(done.Finishes, &store.Finish{
				Lease: lease, To: job.Succeeded, Result: &job.Result{ContentType: "text/plain", Body: body},
				Entries: []job.Entry{{Seq: 1, Attempt: 1, Kind: job.KindText, Events: 1, Data: body}},
			})
		}
		a.commit(born)
		a.commit(done)
	}
}

// harness is a store for tests of single jobs. The test sets its clock and may damage its rows.
type harness struct {
	*testing.T
	*Store
	path string
	now  time.Time
}

func newHarness(t *testing.T) *harness {
	d := &harness{T: t, path: filepath.Join(t.TempDir(), "jobs.db"), now: time.Date(2031, 5, 7, 11, 0, 0, 0, time.UTC)}
	WriteNewDatabase(t, d.path)
	d.open()
	t.Cleanup(func() { _ = d.Store.Close() })
	return d
}

func (d *harness) open() { d.Helper(); d.openWith(nil) }

func (d *harness) openWith(atEnd store.AtEnd) {
	d.Helper()
	s, err := Open(d.Context(), d.path, Options{
		Clock: func() time.Time { return d.now }, Unsynced: true, AtEnd: atEnd, Readers: 2, // fewer open faster
	})
	if err != nil {
		d.Fatal(err)
	}
	d.Store = s
}

func (d *harness) apply(ops ...any) *store.Batch {
	d.Helper()
	b := store.NewBatch()
	for _, op := range ops {
		b.Add(op)
	}
	if err := store.Commit(d.Context(), d.Store, b); err != nil {
		d.Fatalf("the batch was not committed: %v", err)
	}
	return b
}

var testOwner = job.Owner{User: "someone"}

func (d *harness) submit(edits ...func(*store.Submit)) job.ID {
	d.Helper()
	s := &store.Submit{Input: []byte("{}"), Job: job.Job{
		ID: job.NewID(), Owner: testOwner, Queue: "q", Priority: 5, MaxAttempts: 3, Metadata: map[string]string{"a": "b"},
		Policy: job.Policy{Timeouts: job.Timeouts{Lease: time.Minute, Abandon: time.Hour}, Retry: job.Retry{AfterOutput: job.RestartAfterOutput}},
	}}
	for _, edit := range edits {
		edit(s)
	}
	d.apply(s)
	return s.Job.ID
}

// spoil overwrites a column of jobs' rows with invalid bytes.
func (d *harness) spoil(column string, jobs ...job.ID) {
	d.Helper()
	for _, id := range jobs {
		sql := fmt.Sprintf("UPDATE jobs SET %s = x'7b00ff' WHERE id = ?", column)
		if err := sqlitex.Execute(d.conn, sql, &sqlitex.ExecOptions{Args: []any{id[:]}}); err != nil {
			d.Fatal(err)
		}
	}
}

// checkFailed checks that the batch reports the jobs as damaged, that they have failed, and that
// they can be read again.
func (d *harness) checkFailed(b *store.Batch, jobs ...job.ID) {
	d.Helper()
	for _, id := range jobs {
		if !slices.Contains(b.Damaged, id) {
			d.Errorf("the batch does not report a damaged row")
		}
		j, err := d.Job(d.Context(), testOwner, id)
		if err != nil || j.State != job.Failed || j.Failure == nil || j.Failure.Code != store.DamagedJob {
			d.Errorf("a job whose row was damaged is %s with the failure %+v: %v", j.State, j.Failure, err)
		}
	}
	if len(b.Damaged) != len(jobs) {
		d.Errorf("the batch reports %d damaged rows, want %d", len(b.Damaged), len(jobs))
	}
}

func newClaim(n int) *store.Claim {
	c := &store.Claim{Queue: "q", Worker: "w", LeaseFor: time.Minute}
	for range n {
		c.Tokens = append(c.Tokens, job.NewToken())
	}
	return c
}

func (d *harness) reopenWith(atEnd store.AtEnd) {
	d.Helper()
	if err := d.Store.Close(); err != nil {
		d.Fatal(err)
	}
	d.openWith(atEnd)
}

func (d *harness) exec(sql string, args ...any) {
	d.Helper()
	d.mu.Lock() // the vacuum uses the connection too
	defer d.mu.Unlock()
	if err := sqlitex.Execute(d.conn, sql, &sqlitex.ExecOptions{Args: args}); err != nil {
		d.Fatal(err)
	}
}

func (d *harness) running(edits ...func(*store.Submit)) (job.ID, job.Lease) {
	d.Helper()
	token := job.NewToken()
	leased := func(s *store.Submit) { s.Token, s.LeaseFor, s.Worker = token, time.Minute, "w" }
	id := d.submit(append(edits, leased)...)
	return id, job.Lease{Job: id, Token: token}
}

func textEntry(seq int64, text string) []job.Entry {
	return []job.Entry{{Seq: seq, Attempt: 1, Kind: job.KindText, Data: []byte(text)}}
}

func (d *harness) count(sql string) (n int64) {
	d.Helper()
	d.mu.Lock() // the vacuum uses the connection too
	defer d.mu.Unlock()
	if _, err := newQuery(d.conn, sql).first(func(c column) error { n = c.int(0); return nil }); err != nil {
		d.Fatal(err)
	}
	return n
}
