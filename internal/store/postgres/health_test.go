package postgres

import (
	"fmt"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// healthHarness is a store on a server of its own: other tests hold snapshots and locks too.
func healthHarness(t *testing.T) (*Store, pgtest.Database, *pgtest.Server) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a database of its own")
	}
	server := pgtest.Start(t, pgtest.Options{Fast: true, Settings: map[string]string{"wal_level": "logical", "max_prepared_transactions": "1", "autovacuum": "off"}})
	db := server.Schema(t)
	if _, err := Up(t.Context(), db.Connect(t)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), db.URL(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, db, server
}

func healthOf(t *testing.T, s *Store) Health {
	t.Helper()
	h, err := s.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h Health) table(name string) TableHealth {
	for _, t := range h.Tables {
		if t.Name == name {
			return t
		}
	}
	return TableHealth{}
}

// A role without special rights sees the snapshots that other roles hold, in each of the ways.
func TestHealthShowsHeldSnapshots(t *testing.T) {
	s, _, server := healthHarness(t)
	server.Exec(t, "create table other (n int)")
	begin := func(hold func(), release func()) (held int64) {
		t.Helper()
		hold()
		for range 20 {
			server.Exec(t, "insert into other values (1)")
		}
		held = healthOf(t, s).SnapshotAge
		release()
		return held
	}
	if h := healthOf(t, s); h.SnapshotAge > 2 || h.OldestTransaction > time.Minute {
		t.Fatalf("nobody holds anything: %+v", h)
	}
	for name, held := range map[string]int64{
		"a session": begin(holdSession(t, server)),
		"a prepared transaction": begin(
			func() { server.Exec(t, "begin; insert into other values (2); prepare transaction 'held'") },
			func() { server.Exec(t, "rollback prepared 'held'") }),
	} {
		if held < 20 {
			t.Errorf("%s holds a snapshot of %d transactions ago", name, held)
		}
	}
	if h := healthOf(t, s); h.SnapshotAge > 2 {
		t.Errorf("a snapshot that was released still counts: %d", h.SnapshotAge)
	}
}

// holdSession returns functions that take a snapshot in a session, and release it.
func holdSession(t *testing.T, server *pgtest.Server) (hold, release func()) {
	other := server.Schema(t).Connect(t)
	run := func(sql string) {
		t.Helper()
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return func() { run("begin isolation level repeatable read"); run("select 1") }, func() { run("commit") }
}

func TestHealthShowsTransactionsAndLockWaits(t *testing.T) {
	s, db, _ := healthHarness(t)
	holder, waiter := db.Connect(t), db.Connect(t)
	if _, err := holder.Exec(t.Context(), "begin; lock table token_keys"); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	got := make(chan error, 1)
	go func() {
		_, err := waiter.Exec(t.Context(), "select * from token_keys")
		got <- err
	}()
	h := healthOf(t, s)
	for deadline := time.Now().Add(time.Minute); h.LockWait == 0 && time.Now().Before(deadline); h = healthOf(t, s) {
	}
	if h.LockWait <= 0 || h.LockWait > time.Since(before) || h.OldestTransaction < h.LockWait {
		t.Errorf("a lock is waited for since %v, in a transaction of %v", h.LockWait, h.OldestTransaction)
	}
	if _, err := holder.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if h := healthOf(t, s); h.LockWait != 0 || h.OldestTransaction != 0 {
		t.Errorf("nobody waits any more: %+v", h)
	}
}

func TestHealthShowsTablesSizeAndSlots(t *testing.T) {
	s, db, server := healthHarness(t)
	h := healthOf(t, s)
	if len(h.Tables) != 4 || h.table("jobs").Dead != 0 || !h.table("jobs").Vacuumed.IsZero() {
		t.Errorf("the tables are %+v", h.Tables)
	}
	if h.Bytes < 1<<20 || h.Sessions < 1 || h.MaxSessions < 2 || h.Synchronous || h.Standbys != 0 || h.RetainedBytes != 0 {
		t.Errorf("%+v", h)
	}
	conn := db.Connect(t)
	run := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	run("insert into moves (seq, at, last_n, data) select n, 0, 0, '' from generate_series(1000, 1099) n")
	run("delete from moves where seq >= 1050")
	run("select pg_stat_force_next_flush()")
	run("select 1")
	h = healthOf(t, s)
	if m := h.table("moves"); m.Rows != 50 || m.Dead != 50 {
		t.Errorf("moves has %+v, want 50 rows and 50 dead ones", m)
	}
	run("vacuum moves")
	run("select pg_stat_force_next_flush()")
	run("select 1")
	if m := healthOf(t, s).table("moves"); m.Dead != 0 || time.Since(m.Vacuumed) > time.Minute {
		t.Errorf("after a vacuum moves has %+v", m)
	}

	server.Exec(t, "select pg_create_physical_replication_slot('behind', true)")
	server.Exec(t, "select pg_switch_wal()")
	server.Exec(t, fmt.Sprintf("create table %s.more (n int)", db.Role()))
	if h := healthOf(t, s); h.RetainedBytes < 1<<20 {
		t.Errorf("a slot that is behind retains %d bytes", h.RetainedBytes)
	}
	server.Exec(t, "select pg_drop_replication_slot('behind')")
	server.Exec(t, "alter system set synchronous_standby_names = 'other'")
	server.Exec(t, "set synchronous_commit = local; select pg_reload_conf()")
	for deadline := time.Now().Add(time.Minute); !h.Synchronous && time.Now().Before(deadline); h = healthOf(t, s) {
	}
	if !h.Synchronous {
		t.Error("commits wait for a standby, which is not shown")
	}
	server.Exec(t, "alter system reset synchronous_standby_names")
	server.Exec(t, "select pg_reload_conf()")
}

func TestPoolStats(t *testing.T) {
	t.Parallel()
	p, err := NewPool(t.Context(), newDatabase(t).URL(), 3, false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	held, err := p.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s := StatsOf(p); s.InUse != 1 || s.Idle != 0 || s.Max != 3 {
		t.Errorf("while one is in use: %+v", s)
	}
	held.Release()
	if s := StatsOf(p); s.InUse != 0 || s.Idle != 1 || s.Waits == 0 || s.Waited == 0 {
		t.Errorf("afterwards: %+v", s) // the first caller has waited for a connection to be made
	}
}
