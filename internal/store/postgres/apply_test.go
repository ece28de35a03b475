package postgres

import (
	"errors"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// another opens a second store on the database of the harness.
func (d *harness) another() *Store {
	d.Helper()
	s, err := Open(d.Context(), d.db.URL(), Options{Clock: func() time.Time { return d.now }, Readers: 2})
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { _ = s.Close() })
	return s
}

// count returns the result of a query for a number.
func (d *harness) count(sql string) (n int) {
	d.Helper()
	if err := d.db.Connect(d.T).QueryRow(d.Context(), sql).Scan(&n); err != nil {
		d.Fatal(err)
	}
	return n
}

// wantQueued checks the number of queued jobs as a store has it.
func (d *harness) wantQueued(s *Store, want int64) {
	d.Helper()
	counts, err := s.Counts(d.Context())
	if err != nil || counts["q"].Queued != want {
		d.Errorf("a store counts %d queued jobs (%v), want %d", counts["q"].Queued, err, want)
	}
}

// A commit whose answer is lost is stored, or not. Committed again, the batch is stored once and
// keeps the answers that it had.
func TestLostCommit(t *testing.T) {
	t.Parallel()
	pgtest.InShort(t)
	lost := errors.New("the connection was lost")
	for name, c := range map[string]struct{ stored, direct bool }{
		"stored": {true, false}, "not stored": {false, false}, "direct and stored": {true, true}, "direct and not stored": {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stored, direct := c.stored, c.direct
			d := newHarness(t)
			d.Store.options.alwaysRead = !direct
			d.apply(newSubmit())
			losing := true
			d.Store.beforeCommit = func() {
				if losing && !stored {
					losing = false
					d.db.KillBackends(t)
				}
			}
			d.Store.afterCommit = func(err error) error {
				if losing && stored {
					losing = false
					return lost
				}
				return err
			}
			op := newSubmit()
			b := store.NewBatch()
			b.Add(op)
			err := store.Commit(t.Context(), d.Store, b)
			// A direct batch that was not sent at all is applied in another way.
			if (stored || !direct) && (err == nil || errors.Is(err, store.ErrNotCommitted)) {
				t.Fatalf("a lost commit answers %v, want an unknown outcome", err)
			}
			if err := store.Commit(t.Context(), d.Store, b); err != nil {
				t.Fatal(err)
			}
			if got := d.count("select count(*) from jobs"); got != 2 {
				t.Errorf("%d jobs are stored, want 2", got)
			}
			if j, err := d.Store.Job(t.Context(), local, op.Job.ID); err != nil || j.State != job.Queued || op.Err != nil {
				t.Errorf("the job reads %v (%v), and its submit answers %v", j.State, err, op.Err)
			}
			d.wantQueued(d.Store, 2)
			d.wantQueued(d.another(), 2)
		})
	}
}

// A connection that was lost between two batches is replaced, and the next batch is applied.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	d.apply(newSubmit())
	d.db.KillBackends(t)
	d.apply(newSubmit())
	d.wantQueued(d.Store, 2)
}

// A fold writes the counts and deletes old moves. A store that has not followed them loads its
// memory again.
func TestFold(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	other := d.another()
	d.Store.folding = folding{every: 0, keep: time.Minute}
	for range 40 {
		d.apply(newSubmit())
		d.now = d.now.Add(10 * time.Second)
	}
	if got := d.count("select count(*) from moves"); got > 8 {
		t.Errorf("%d moves are kept of the last minute, want 6 or 7", got)
	}
	if got := d.count("select count(*) from applied"); got > 2*store.MaxUnsynced+1 {
		t.Errorf("%d ids of batches are kept, want at most %d", got, 2*store.MaxUnsynced+1)
	}
	if got := d.count("select queued from queues"); got != 40 {
		t.Errorf("the fold counts %d queued jobs, want 40", got)
	}
	before := other.lastSeq
	d.wantQueued(other, 40)
	if before != 0 || other.lastSeq != 40 {
		t.Errorf("the other store went from move %d to %d, want 0 to 40", before, other.lastSeq)
	}
	d.wantQueued(d.another(), 40)
	claim := &store.Claim{Queue: "q", Tokens: []job.Token{job.NewToken(), job.NewToken()}, LeaseFor: time.Minute}
	b := store.NewBatch()
	b.Add(claim)
	if err := store.Commit(t.Context(), other, b); err != nil || len(claim.Claimed) != 2 {
		t.Errorf("the other store claimed %d jobs (%v), want 2", len(claim.Claimed), err)
	}
	d.wantQueued(d.Store, 38)
}

// A batch that changes nothing writes nothing.
func TestNothingToWrite(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	d.apply(newSubmit())
	before := d.count("select count(*) from applied")
	d.apply(&store.Claim{Queue: "empty", Tokens: []job.Token{job.NewToken()}, LeaseFor: time.Minute})
	d.apply(&store.Renew{Lease: job.Lease{Job: job.NewID(), Token: job.NewToken()}})
	if got := d.count("select count(*) from applied"); got != before {
		t.Errorf("%d batches are stored, want %d", got, before)
	}
}

// A database that confirms commits before they are on disk is refused.
func TestAsynchronousCommitIsRefused(t *testing.T) {
	t.Parallel()
	pgtest.InShort(t)
	d := newHarness(t)
	if _, err := d.db.Connect(t).Exec(t.Context(), "alter role "+d.db.Role()+" set synchronous_commit = off"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), d.db.URL(), Options{}); !errors.Is(err, ErrAsynchronous) {
		t.Errorf("opening answers %v, want ErrAsynchronous", err)
	}
}

// Statements that are sent whole, as for a transaction pooler, do the same.
func TestUnprepared(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	s, err := Open(t.Context(), d.db.URL(), Options{Unprepared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	b := store.NewBatch()
	claim := &store.Claim{Queue: "q", Tokens: []job.Token{job.NewToken()}, LeaseFor: time.Minute}
	b.Add(newSubmit())
	b.Add(claim)
	if err := store.Commit(t.Context(), s, b); err != nil || len(claim.Claimed) != 1 {
		t.Fatalf("%d jobs claimed, %v", len(claim.Claimed), err)
	}
	if len(s.writer.prepared) != 0 {
		t.Error("statements were prepared")
	}
}
