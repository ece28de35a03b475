package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/cutproxy"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// proxied opens a store that reaches its database through a proxy, and gives a connection up soon.
func proxied(t *testing.T) (*Store, *cutproxy.Proxy, pgtest.Database) {
	t.Helper()
	d := NewDatabase(t)
	p := cutproxy.New(t)
	p.SetTarget(pgtest.Shared(t).Socket())
	s, err := Open(t.Context(), d.NetworkURL(p.Addr()), Options{Readers: 2, patience: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, p, d
}

// commitUntilKnown applies a batch as the engine does: again, while its outcome is not known.
func commitUntilKnown(t *testing.T, s *Store, b *store.Batch) {
	t.Helper()
	for {
		err := store.Commit(t.Context(), s, b)
		if err == nil {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
		t.Log(err)
	}
}

func TestConnectionThatHangsIsReplaced(t *testing.T) {
	t.Parallel()
	s, p, _ := proxied(t)
	first := newSubmit()
	commitUntilKnown(t, s, batchOf(first))
	for range 3 {
		p.Abandon()
		again := newSubmit()
		commitUntilKnown(t, s, batchOf(again))
		if again.Err != nil {
			t.Fatal(again.Err)
		}
		p.Abandon()
		if _, err := s.Counts(t.Context()); err != nil {
			t.Log(err) // the caller reads again
		}
		for {
			if j, err := s.Job(t.Context(), local, first.Job.ID); err == nil && j.ID == first.Job.ID {
				break
			} else {
				t.Log(err)
			}
		}
	}
	c, err := s.Counts(t.Context())
	if err != nil || c["q"].Queued != 4 {
		t.Errorf("%+v, %v; want 4 queued jobs", c, err)
	}
}

// A connection whose last transaction holds the lock of all moves must not delay the others until
// the server notices.
func TestTransactionOfConnectionThatHangsIsEnded(t *testing.T) {
	t.Parallel()
	s, p, d := proxied(t)
	holder := d.Connect(t)
	lock := strings.Replace("begin; "+lockMoves.sql, "$1", fmt.Sprint(movesLock), 1)
	if _, err := holder.Exec(t.Context(), lock); err != nil {
		t.Fatal(err)
	}
	applied := make(chan error, 1)
	b := batchOf(newSubmit())
	go func() { applied <- store.Commit(context.WithoutCancel(t.Context()), s, b) }()
	// The batch waits for the lock, which it will get while nobody hears of it.
	for waiting := 0; waiting == 0; {
		if err := d.Connect(t).QueryRow(t.Context(), "select count(*) from pg_stat_activity where usename = $1 and wait_event = 'advisory'", d.Role()).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	p.Abandon()
	if _, err := holder.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := <-applied; err != nil {
		commitUntilKnown(t, s, b)
	}
	if took := time.Since(began); took > maxIdle/2 {
		t.Errorf("it took %v", took)
	}
}

// An answer that is only late does not cost the connection.
func TestSlowAnswerKeepsItsConnection(t *testing.T) {
	t.Parallel()
	s, _, d := proxied(t)
	commitUntilKnown(t, s, batchOf(newSubmit()))
	before := s.writer
	holder := d.Connect(t)
	if _, err := holder.Exec(t.Context(), "begin; lock table jobs in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	applied := make(chan error, 1)
	go func() { applied <- store.Commit(context.WithoutCancel(t.Context()), s, batchOf(newSubmit())) }()
	select {
	case err := <-applied:
		t.Fatalf("it did not wait for the lock: %v", err)
	case <-time.After(10 * s.guard.patience):
	}
	if _, err := holder.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	if err := <-applied; err != nil || s.writer != before {
		t.Errorf("%v; the connection is the same: %v", err, s.writer == before)
	}
}

func batchOf(op any) *store.Batch {
	b := store.NewBatch()
	b.Add(op)
	return b
}
