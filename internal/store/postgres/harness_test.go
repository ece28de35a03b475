package postgres

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

var databases = pgtest.Pool{Prepare: func(ctx context.Context, conn *pgx.Conn) error {
	_, err := Up(ctx, conn)
	return err
}}

// NewDatabase returns a database for a store, with all migrations and no jobs. When the test
// ends, the database must pass Check, which with -short is left out: it takes as long as the rest
// of a test. The test must not change the tables.
func NewDatabase(tb testing.TB) pgtest.Database {
	tb.Helper()
	d := databases.Schema(tb)
	if testing.Short() {
		return d
	}
	tb.Cleanup(func() {
		for _, defect := range defectsOf(tb, d) {
			tb.Errorf("a check of the database finds: %s", defect)
		}
	})
	return d
}

// newDatabase makes a database with all migrations.
func newDatabase(tb testing.TB) pgtest.Database {
	tb.Helper()
	d := pgtest.Shared(tb).Schema(tb)
	conn := d.Connect(tb)
	if _, err := Up(context.Background(), conn); err != nil {
		tb.Fatal(err)
	}
	_ = conn.Close(context.Background())
	return d
}

// defectsOf returns what Check finds.
func defectsOf(tb testing.TB, d pgtest.Database) (defects []string) {
	tb.Helper()
	if err := Check(context.Background(), d.Connect(tb), func(defect string) { defects = append(defects, defect) }); err != nil {
		tb.Error(err)
	}
	return defects
}

// harness is a store for tests of single jobs. The test sets its clock.
type harness struct {
	*testing.T
	*Store
	db  pgtest.Database
	now time.Time
}

func newHarness(t *testing.T) *harness {
	d := &harness{T: t, db: NewDatabase(t), now: time.Date(2031, 5, 7, 11, 0, 0, 0, time.UTC)}
	s, err := Open(t.Context(), d.db.URL(), Options{Clock: func() time.Time { return d.now }, Readers: 2})
	if err != nil {
		t.Fatal(err)
	}
	d.Store = s
	t.Cleanup(func() { _ = s.Close() })
	return d
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

var local = job.Owner{Tenant: "t", User: "local"}

func newSubmit(edit ...func(*store.Submit)) *store.Submit {
	s := &store.Submit{
		Job:   job.Job{ID: job.NewID(), Owner: local, Queue: "q", Key: "k", Priority: 5, MaxAttempts: 3},
		Input: []byte("input"),
	}
	for _, f := range edit {
		f(s)
	}
	return s
}

// leased lets the submit store a running job.
func leased(s *store.Submit) {
	s.Token, s.LeaseFor, s.Worker = job.NewToken(), time.Minute, "w"
}

func leaseOf(s *store.Submit) job.Lease { return job.Lease{Job: s.Job.ID, Token: s.Token} }

// entriesAfter makes entries of text after a number.
func entriesAfter(n int64, texts ...string) (list []job.Entry) {
	for i, text := range texts {
		list = append(list, job.Entry{Seq: n + int64(i) + 1, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte(text)})
	}
	return list
}

// exec runs a statement as another program would.
func (d *harness) exec(sql string, args ...any) {
	d.Helper()
	tag, err := d.db.Connect(d.T).Exec(d.Context(), sql, args...)
	if err != nil || tag.RowsAffected() == 0 {
		d.Fatalf("%s: %v, %v", sql, tag, err)
	}
}

// LoseAnswers makes a store lose the connection at two of seven commits: once after the commit, and
// once before it.
func LoseAnswers(s *Store) {
	n := 0
	s.beforeCommit = func() {
		if n++; n%7 == 3 {
			_ = s.writer.conn.Close()
		}
	}
	s.afterCommit = func(err error) error {
		if n%7 == 6 {
			return errors.New("the answer was lost")
		}
		return err
	}
}

// Eager makes a store try direct batches also while another one is busy.
func Eager(s *Store) { s.aloneFor = 0 }

// AlwaysRead makes a store read before each batch.
func AlwaysRead(s *Store) { s.options.alwaysRead = true }
