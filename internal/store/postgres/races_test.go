package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// batchWith makes a batch of ops.
func batchWith(ops ...any) *store.Batch {
	b := store.NewBatch()
	for _, op := range ops {
		b.Add(op)
	}
	return b
}

// applyTo applies ops to one of several stores.
func (d *harness) applyTo(s *Store, ops ...any) *store.Batch {
	d.Helper()
	b := batchWith(ops...)
	if err := store.Commit(d.Context(), s, b); err != nil {
		d.Fatalf("the batch was not committed: %v", err)
	}
	return b
}

// start applies a batch in a goroutine.
func (d *harness) start(s *Store, ops ...any) <-chan error {
	done := make(chan error, 1)
	b := batchWith(ops...)
	go func() { done <- store.Commit(context.WithoutCancel(d.Context()), s, b) }()
	return done
}

// awaitQuery waits until a query of a number answers more than 0, and fails when done is first.
func (d *harness) awaitQuery(done <-chan error, sql string) {
	d.Helper()
	for conn := d.db.Connect(d.T); ; {
		select {
		case err := <-done:
			d.Fatalf("the batch ended (%v) before: %s", err, sql)
		default:
		}
		n := 0
		if err := conn.QueryRow(d.Context(), sql).Scan(&n); err != nil {
			d.Fatal(err)
		}
		if n > 0 {
			return
		}
	}
}

const waitsForLock = "select count(*) from pg_stat_activity where usename = current_user and wait_event_type = 'Lock'"

// A renewal of a job with a damaged row ends the job. The batch has no other op that needs the lock
// of the installation, and other processes have moved jobs meanwhile.
func TestRenewalEndsDamagedJob(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	AlwaysRead(d.Store) // a direct batch does not see the damage
	other := d.another()
	bad, sound := newSubmit(leased), newSubmit(leased)
	d.apply(bad, sound)
	d.exec("update jobs set policy = 'x' where id = $1", bad.Job.ID)
	d.applyTo(other, newSubmit())
	renewBad, renew := &store.Renew{Lease: leaseOf(bad)}, &store.Renew{Lease: leaseOf(sound)}
	b := d.apply(renewBad, renew)
	if len(b.Damaged) != 1 || job.CodeOf(renewBad.Err) != job.LeaseLost || renew.Err != nil {
		t.Errorf("%d damaged jobs; the renewals answer %v and %v", len(b.Damaged), renewBad.Err, renew.Err)
	}
	for _, s := range []*Store{d.Store, other} {
		if c, err := s.Counts(t.Context()); err != nil || c["q"] != (job.Counts{Queued: 1, Running: 1, Failed: 1, WaitingBytes: c["q"].WaitingBytes}) {
			t.Errorf("the counts are %+v, %v", c["q"], err)
		}
	}
}

// A list by time finds a job whose id is much older than the job, also after a failed batch with
// such a job.
func TestIDSkewOfFailedBatch(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	old := func(s *store.Submit) {
		binary.BigEndian.PutUint64(s.Job.ID[:], uint64(d.now.Add(-9*time.Hour).UnixMilli())<<16|0x7000)
	}
	bad := newSubmit(old, func(s *store.Submit) { s.Job.Key = "\x00" })
	if err := store.Commit(t.Context(), d.Store, batchWith(bad)); !errors.Is(err, store.ErrData) {
		t.Fatalf("the bad batch answers %v", err)
	}
	op := newSubmit(old)
	d.apply(op)
	page, _, err := d.List(t.Context(), job.Filter{Owner: local, Limit: 10, CreatedAfter: d.now.Add(-time.Minute)})
	if err != nil || len(page) != 1 {
		t.Errorf("a list has %d jobs, want the new one: %v", len(page), err)
	}
}

// A batch without the lock of the installation is in doubt, and must have it when it is applied
// again, because a suspect can be queued meanwhile. It still finds out whether it is stored.
func TestBatchInDoubtThatNowNeedsTheLock(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	AlwaysRead(d.Store)
	other := d.another()
	suspects := []*store.Submit{newSubmit(leased), newSubmit(leased), newSubmit(leased)}
	for _, s := range suspects {
		d.apply(s)
		for range 2 {
			d.apply(&store.Finish{Lease: leaseOf(s), To: job.Queued, Lost: true})
			s.Token = job.NewToken()
			d.apply(&store.Claim{Queue: "q", Tokens: []job.Token{s.Token}, LeaseFor: time.Minute})
		}
	}
	held := newSubmit(leased)
	d.apply(held)
	if c, err := d.Counts(t.Context()); err != nil || c["q"].Parked != 2 || c["q"].Running != 2 {
		t.Fatalf("the counts are %+v (%v), want a suspect that runs and two that wait", c["q"], err)
	}

	// Its commit is lost, and is still under way at the server.
	b := batchWith(&store.Append{Lease: leaseOf(held), Entries: entriesAfter(0, "text")})
	d.Store.beforeCommit = func() { d.db.KillBackends(t); d.Store.beforeCommit = nil }
	if _, err := d.Store.Apply(t.Context(), b); err == nil || errors.Is(err, store.ErrNotCommitted) {
		t.Fatalf("a lost commit answers %v", err)
	}
	under, err := d.db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"select pg_advisory_xact_lock($1::bigint), $2::uuid is null",
		"insert into applied (batch, at) select $2::uuid, $1::bigint",
	} {
		if _, err := under.Exec(t.Context(), sql, d.Store.process, b.ID); err != nil {
			t.Fatal(err)
		}
	}
	d.applyTo(other, &store.Finish{Lease: leaseOf(suspects[0]), To: job.Succeeded})
	if _, err := d.Counts(t.Context()); err != nil || !d.Store.suspectStuck() {
		t.Fatalf("no suspect can be queued (%v)", err)
	}
	done := make(chan error, 1)
	go func() { done <- store.Commit(context.WithoutCancel(t.Context()), d.Store, b) }()
	d.awaitQuery(done, waitsForLock)
	if err := under.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the batch that is stored answers %v", err)
	}
	// The transaction of the test wrote no output.
	if _, entries, err := d.Output(t.Context(), local, held.Job.ID, 0, 100); err != nil || len(entries) != 0 {
		t.Errorf("the batch was stored twice: %d entries, %v", len(entries), err)
	}
}

// A database that was restored to an earlier time goes on with other moves under the same numbers.
func TestRestoredDatabase(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	d.apply(newSubmit())
	d.now = d.now.Add(time.Second)
	lost := newSubmit()
	d.apply(lost)
	for _, table := range []string{"inputs where n = (select n from jobs where id = $1)", "jobs where id = $1"} {
		d.exec("delete from "+table, lost.Job.ID)
	}
	d.exec("delete from moves where seq = 2")
	d.exec("delete from applied where at = $1", d.now.UnixMicro())
	d.now = d.now.Add(time.Minute)
	other := d.another()
	d.applyTo(other, newSubmit(), newSubmit())
	d.applyTo(other, newSubmit())
	d.wantQueued(other, 4)
	d.wantQueued(d.Store, 4)
	d.apply(newSubmit())
	d.wantQueued(other, 5)
}

// A store knows the database's clock before its first batch.
func TestClockIsReadAtOpening(t *testing.T) {
	t.Parallel()
	d := NewDatabase(t)
	s, err := Open(t.Context(), d.URL(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	if s.clock.at.IsZero() {
		t.Error("the database's clock was not read")
	}
}

// Batches lock the rows of running jobs in one order, however they name them, so that a batch
// without the lock of the installation and one with it do not wait for each other.
func TestRowsAreLockedInOneOrder(t *testing.T) {
	t.Parallel()
	first, second := newSubmit(leased), newSubmit(leased)
	for name, ops := range map[string][]any{
		"cancels":               {&store.Cancel{Owner: local, ID: second.Job.ID}, &store.Cancel{Owner: local, ID: first.Job.ID}},
		"a finish and a cancel": {&store.Finish{Lease: leaseOf(second), To: job.Succeeded}, &store.Cancel{Owner: local, ID: first.Job.ID}},
		"a cancel and a token": {&store.Cancel{Owner: local, ID: second.Job.ID},
			&store.Claim{Queue: "q", Tokens: []job.Token{first.Token}, LeaseFor: time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newHarness(t)
			one, two := *first, *second
			d.apply(&one, &two)
			holder, err := d.db.Connect(t).Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := holder.Exec(t.Context(), "select from jobs where id = $1 for update", first.Job.ID); err != nil {
				t.Fatal(err)
			}
			done := d.start(d.Store, ops...)
			d.awaitQuery(done, waitsForLock)
			if _, err := holder.Exec(t.Context(), "select from jobs where id = $1 for update nowait", second.Job.ID); err != nil {
				t.Errorf("the second row is locked before the first: %v", err)
			}
			if err := errors.Join(holder.Rollback(t.Context()), <-done); err != nil {
				t.Error(err)
			}
		})
	}
}

// A caller that goes away while the memory is read costs no connection.
func TestCancelledReadOfMemoryKeepsConnection(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	d.apply(newSubmit())
	before := d.Store.writer
	holder, err := d.db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec(t.Context(), "lock table moves in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := d.Counts(ctx); done <- err }()
	d.awaitQuery(done, waitsForLock)
	cancel()
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	d.apply(newSubmit())
	if d.Store.writer != before {
		t.Error("the connection was replaced")
	}
}

// The machine of a process dies in the middle of a batch, between two statements that it sends
// together. The server waits for the next one, but the others do not wait for that.
func TestSilentHolderOfTheLockIsEnded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits until a lock is not given")
	}
	d := newHarness(t)
	d.Store.maxSilent = time.Millisecond
	dead := d.db.Connect(t).PgConn().StartPipeline(context.WithoutCancel(t.Context()))
	dead.SendQueryParams("begin", nil, nil, nil, nil)
	dead.SendQueryParams(configure.sql, [][]byte{[]byte("5000"), []byte("5000"), []byte("10")}, nil, nil, nil)
	dead.SendQueryParams(lockMoves.sql, [][]byte{intParam(movesLock)}, nil, binaryFormat, nil)
	if err := dead.Flush(); err != nil {
		t.Fatal(err)
	}
	d.awaitQuery(nil, "select count(*) from pg_locks where locktype = 'advisory' and granted and pid <> pg_backend_pid()")
	d.apply(newSubmit())
	d.wantQueued(d.Store, 1)
}

// All processes take the same lock, whatever schemas their search_path has before the tables.
func TestLockBelongsToTheTables(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	server := pgtest.Shared(t)
	before := d.db.Role() + "_before"
	server.Exec(t, "create schema "+before+" authorization "+d.db.Role())
	s, err := Open(t.Context(), d.db.URL()+"&search_path="+before+"%2C"+d.db.Role(), Options{Clock: func() time.Time { return d.now }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	holder, err := d.db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec(t.Context(), "lock table fold in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	d.Store.folding.every = 0
	done := d.start(d.Store, newSubmit())
	d.awaitQuery(done, waitsForLock) // it has the lock of the installation and waits for the table
	second := d.start(s, newSubmit())
	d.awaitQuery(second, "select count(*) from pg_stat_activity where usename = current_user and wait_event = 'advisory'")
	if err := errors.Join(holder.Rollback(t.Context()), <-done, <-second); err != nil {
		t.Error(err)
	}
}
