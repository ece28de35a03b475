package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

var (
	begin    = &statement{"begin", "begin isolation level read committed"}
	commit   = &statement{"commit", "commit"}
	rollback = &statement{"rollback", "rollback"}
	// configure sets what holds for the transaction only: a pooler may give the connection to
	// somebody else afterwards. A plan is made once for each statement, perhaps for empty tables.
	// Statements find their rows by an index whatever the statistics say: by n = any(…), whose rows
	// are then joined with the new values by a hash, or by a lateral read for each element. What is
	// switched off counts as very expensive, for which the server would compile the statement.
	configure = &statement{"configure", "select " + writerSettings + " from (select true as local) l"}
	// configureSession does the same once, on a connection that is not behind a pooler.
	configureSession = &statement{"configure_session", "select " + writerSettings + " from (select false as local) l where pg_backend_pid() = $4::bigint"}
	lockMoves        = &statement{"lock_moves", "select pg_advisory_xact_lock($1::bigint::int, 'moves'::regclass::oid::bigint::bit(32)::int)"}
	lockProcess      = &statement{"lock_process", "select pg_advisory_xact_lock($1::bigint)"}
	readStart        = &statement{"read_start", "select " + clockMicros + ", exists (select from applied where batch = $1::uuid)"}
	insertMove       = &statement{"insert_move", "insert into moves (seq, at, last_n, data) values ($1::bigint, $2::bigint, $3::bigint, $4::bytea)"}
	insertBatch      = &statement{"insert_batch", "insert into applied (batch, at, bytes) values ($1::uuid, $2::bigint, $3::bigint)"}
)

const writerSettings = `set_config('lock_timeout', $1::text, local), set_config('statement_timeout', $2::text, local),
	set_config('idle_in_transaction_session_timeout', $3::text, local), set_config('enable_seqscan', 'off', local),
	set_config('enable_nestloop', 'off', local), set_config('enable_mergejoin', 'off', local), set_config('plan_cache_mode', 'force_generic_plan', local),
	set_config('jit', 'off', local)`

const (
	// movesLock is the class of the advisory lock that orders all moves of an installation. The
	// object is the table of moves, and not the current schema: that differs for a process whose
	// search_path has another schema before that of the tables.
	movesLock = 0x6d77_6d76
	// A process that hangs inside a transaction delays the others for this long.
	maxIdle = 10 * time.Second
	maxWait = 5 * time.Second  // for a lock
	maxRun  = 60 * time.Second // of a statement
	// maxTries is how often a batch that met another transaction runs.
	maxTries = 3
)

// randomLock makes the number of the advisory lock of a process.
func randomLock() int64 { return rand.Int64() | 1<<62 }

// Apply applies a batch; see [store.Store]. The batch is on disk when Apply returns.
func (s *Store) Apply(ctx context.Context, b *store.Batch) (synced func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.ID == (store.BatchID{}) {
		return nil, fmt.Errorf("the batch has no id: %w", store.ErrNotCommitted)
	}
	if synced, err := s.answered(b.ID); synced != nil || err != nil {
		s.abandonBegun()
		// An earlier call applied the batch and answered its ops.
		return synced, err
	}
	s.takeFailure()
	if s.begun == nil && s.isDirect(b) {
		if synced, err = s.applyDirect(ctx, b); !errors.Is(err, errNotDirect) {
			return synced, err
		}
	}
	if err := s.drain(); err != nil || s.mustComeLater(b.ID) {
		return nil, errAgainFirst
	}
	for try, lock := 1, false; ; try++ {
		err := s.applyOnce(ctx, b, lock, try == 1)
		if err == nil {
			s.outcomes.applied(b.ID)
			return func() error { return nil }, nil
		}
		if errors.Is(err, errUnlocked) {
			lock = true
			continue
		}
		if errors.Is(err, store.ErrData) || errors.Is(err, store.ErrFull) {
			s.outcomes.over(b.ID) // the caller may split it
		}
		var again *retryable
		if try == maxTries || !errors.As(err, &again) {
			return nil, err
		}
		// Those that met each other must not meet again.
		wait := time.NewTimer(rand.N(time.Duration(try) * 20 * time.Millisecond))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil, err
		}
	}
}

// retryable is an error of a batch that was not committed and may succeed when it runs again.
type retryable struct{ error }

func (e *retryable) Unwrap() error { return e.error }

// usable returns why no batch can be applied. It connects and loads the memory if necessary.
func (s *Store) usable(ctx context.Context) error {
	switch {
	case s.closed:
		return errors.New("the store is closed")
	case ctx.Err() != nil:
		return ctx.Err()
	}
	err := s.connect(ctx)
	if err == nil {
		err = s.refresh(ctx)
	}
	if err != nil {
		s.noteLost(err)
	}
	return err
}

// noteLost drops the connection after an error that did not come from a statement.
func (s *Store) noteLost(err error) {
	s.begun = nil
	if s.writer == nil {
		return
	}
	// A connection that can only read is to a server that was the primary, or has a setting that
	// only new connections lose.
	if code := codeOf(err); code != "" && !endsConnection(err) && code != "0A000" && code != "26000" && code != "42P05" && code != "25006" {
		// The transaction has failed, and the connection is still good.
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		f := flush{w: s.writer}
		f.add(rollback, nil)
		if f.run(ctx) == nil {
			return
		}
	}
	s.disconnect()
}

// errUnlocked means that a batch moves a job although it does not have the lock of all moves: it
// has met a job with a damaged row.
var errUnlocked = errors.New("postgres: the batch needs the lock of all moves")

// applyOnce runs the transaction of a batch once, with the lock of all moves if lock is true or the
// batch has an op that needs it. If mayAssume is true, it may leave out reads; see direct.go.
func (s *Store) applyOnce(ctx context.Context, b *store.Batch, lock, mayAssume bool) error {
	if err := s.usable(ctx); err != nil {
		return s.failed(err)
	}
	t := newTx(ctx, s)
	t.locked = lock || s.inDoubt || s.begun != nil || s.movesJobs(b)
	t.assumes = mayAssume && s.mayAssume(b)
	known, err := t.start(b)
	s.begun = nil
	if errors.Is(err, errGap) {
		s.noteGap()
		return &retryable{fmt.Errorf("%w: %w", err, store.ErrNotCommitted)}
	}
	if err != nil {
		failed := s.failed(err)
		if codeOf(err) == "55P03" {
			s.endSilentHolder(ctx)
		}
		return failed
	}
	if known {
		// An earlier call was stored although its answer was lost: the ops have their answers.
		s.inDoubt = false
		return s.abandon(ctx)
	}
	// From here on the ops change the memory.
	s.stale = true
	if err := ops.Apply(t, s.mem, b, s.atEnd); err != nil {
		return s.failed(err)
	}
	if !t.locked && len(s.mem.Changes()) > 0 {
		_ = s.abandon(ctx)
		return errUnlocked
	}
	if err := t.finish(b); err != nil {
		if t.assumes && wasOutdated(err) {
			return &retryable{fmt.Errorf("%w: %w", err, store.ErrNotCommitted)}
		}
		return err
	}
	s.stale, s.inDoubt = false, false
	return nil
}

// applyDirect applies a batch without a read. After errNotDirect nothing of it can be stored.
func (s *Store) applyDirect(ctx context.Context, b *store.Batch) (synced func() error, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, s.failed(err)
	}
	t := newTx(ctx, s)
	t.startDirect(b)
	s.stale = true
	err = ops.Apply(t, s.mem, b, s.atEnd)
	changes := s.mem.Changes()
	if err == nil && t.locked && len(changes) == 0 { // no move, and so no guard
		s.stale = false
		return nil, errNotDirect
	}
	if err == nil {
		err = t.writeAll(b, changes)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, store.ErrNotCommitted)
	}
	if s.beforeCommit != nil {
		s.beforeCommit()
	}
	synced, sent := s.sendDirect(t, b.ID)
	if !sent {
		s.disconnect()
		return nil, errNotDirect
	}
	s.stale = false
	if t.locked {
		s.lastSeq, s.lastAt = s.lastSeq+1, roundTime(t.now)
	}
	s.known.keep(t)
	if !t.locked || s.writer.pooled {
		// Many small batches of output would cost more than they win. A pooler may give the next
		// transaction of a connection to another one of its own while this one is not answered.
		err := synced()
		return func() error { return err }, nil
	}
	return synced, nil
}

// failed ends a transaction that failed before its commit was sent.
func (s *Store) failed(err error) error {
	if errors.Is(err, store.ErrData) { // an op found it
		_ = s.abandon(context.Background())
		return fmt.Errorf("%w: %w", err, store.ErrNotCommitted)
	}
	lost := codeOf(err) == "" || endsConnection(err)
	s.noteLost(err)
	if runsAgain(err) || lost && !s.closed {
		return &retryable{notCommitted(err)}
	}
	return notCommitted(err)
}

// noteGap ends the transaction and lets the next one load the memory.
func (s *Store) noteGap() {
	s.stale = true
	_ = s.abandon(context.Background())
}

// abandon ends a transaction that has nothing to write.
func (s *Store) abandon(ctx context.Context) error {
	s.begun = nil
	f := flush{w: s.writer}
	f.add(rollback, nil)
	if err := f.run(ctx); err != nil {
		s.disconnect()
	}
	return nil
}

// movesJobs reports whether a batch may change the memory, and so needs the lock.
func (s *Store) movesJobs(b *store.Batch) bool {
	none := len(b.Pauses)+len(b.Finishes)+len(b.Cancels)+len(b.Deletes)+len(b.Retries)+len(b.Writes)+
		len(b.Submits)+len(b.Dues)+len(b.Prunes)+len(b.Claims) == 0
	// Any batch queues a suspect.
	return !none || s.mem.SuspectIsReady()
}

// start begins the transaction and reads what the batch names. known is true if the batch is
// stored already.
func (t *tx) start(b *store.Batch) (known bool, err error) {
	s := t.s
	if s.begun != nil {
		t.now = *s.begun
		t.prefetch(b)
		if b.Counts != nil { // it was applied before
			t.reads.add(readStart, func(r *record) { r.int(); known = r.flag() }, b.ID[:])
		}
		return known, t.read()
	}
	t.addBegin()
	if !t.locked || s.inDoubt { // the batch in doubt may have had only the one or the other
		t.reads.add(lockProcess, nil, intParam(s.process))
	}
	if t.locked {
		t.reads.add(lockMoves, nil, intParam(movesLock))
	}
	var reading int64
	t.reads.add(readStart, func(r *record) { reading, known = r.int(), r.flag() }, b.ID[:])
	var rows []move
	if t.locked {
		t.reads.add(selectMoves, func(r *record) { rows = append(rows, scanMove(r)) }, intParam(s.lastSeq))
	}
	t.prefetch(b)
	asked := time.Now()
	if err := t.read(); err != nil {
		return false, err
	}
	s.clock.note(time.UnixMicro(reading), asked, time.Now())
	if t.now = time.UnixMicro(reading); s.clock.fixed != nil {
		t.now = s.Now()
	}
	if t.locked {
		err = s.followMoves(rows)
	}
	return known, err
}

// addBegin begins the transaction.
func (t *tx) addBegin() {
	t.reads.add(begin, nil)
	if t.s.writer.pooled {
		t.reads.add(configure, nil, timeouts()...)
	}
}

// timeouts are the parameters of configure.
func timeouts() [][]byte {
	return [][]byte{millisParam(maxWait), millisParam(maxRun), millisParam(maxIdle)}
}

// prefetch adds the reads of what the batch names.
func (t *tx) prefetch(b *store.Batch) {
	if t.assumes {
		t.assume(b)
	} else {
		t.addUsedIDs(b.Submits)
	}
	n := ops.NamesOf(b)
	t.addJobs(n.Running, n.Jobs, n.Tokens)
	t.addKeys(n.Keys)
	t.addRows(n.Rows)
	for _, of := range n.Sets {
		t.addFirstRow(of)
	}
	t.addKept(n.Kept)
	for _, op := range b.Claims {
		t.prefetchLanes(op)
	}
}

// prefetchLanes adds the read of the jobs that a claim will probably lease.
func (t *tx) prefetchLanes(op *store.Claim) {
	q := t.s.mem.Queue(op.Queue)
	if q == nil {
		return
	}
	tenant, share := q.NextTenant(op.Tenant, len(op.Tokens), nil)
	if share > 0 {
		t.readLane(op.Queue, ops.Lane(job.Queued, fairqueue.Key{Tenant: tenant}, ""), share)
	}
}

// finish writes everything and commits.
func (t *tx) finish(b *store.Batch) error {
	s := t.s
	changes := s.mem.Changes()
	seq := s.lastSeq
	if len(changes) > 0 {
		seq++
	}
	deleted, folds := 0, false
	if t.writePending(); t.locked && t.wrote && time.Since(s.foldedAt) >= s.folding.every {
		folds, deleted = true, t.fold(seq)
	}
	if err := t.writeAll(b, changes); err != nil {
		return s.failed(err)
	}
	wrote := t.wrote
	committed := true
	t.reads.calls[len(t.reads.calls)-1].done = func(tag string) { committed = tag == "COMMIT" }
	if s.beforeCommit != nil {
		s.beforeCommit()
	}
	err := t.read()
	if s.afterCommit != nil {
		err = s.afterCommit(err)
	}
	switch {
	case err == nil && committed, !wrote:
		if seq > s.lastSeq {
			s.lastSeq, s.lastAt = seq, t.now
		}
		s.outcomes.stored(b.ID, wrote, deleted)
		if folds {
			s.foldedAt = time.Now()
		}
		if err != nil {
			s.noteLost(err)
			s.stale = true
			return nil
		}
		s.known.keep(t)
		return nil
	case err == nil:
		return s.failed(errors.New("the server ended the transaction with a rollback"))
	case codeOf(err) != "" && !endsConnection(err) && codeOf(err) != "40003":
		return s.failed(err) // a statement failed, so that the commit was not executed
	}
	s.disconnect()
	s.inDoubt = true
	return fmt.Errorf("the connection was lost during the commit: %w", err)
}

// writeAll adds all writes, the move and the commit.
func (t *tx) writeAll(b *store.Batch, changes []ops.Change) error {
	if t.assumes {
		t.addGuard(b)
	}
	t.writePending()
	if t.failed != nil {
		return fmt.Errorf("%w: %w", t.failed, store.ErrData)
	}
	if len(changes) > 0 {
		t.write(insertMove, intParam(t.s.lastSeq+1), intParam(t.now.UnixMicro()), intParam(t.s.lastN), ops.AppendChanges(nil, changes))
	}
	if t.wrote {
		t.write(insertBatch, b.ID[:], intParam(t.now.UnixMicro()), intParam(t.bytes))
	}
	t.reads.add(commit, nil)
	return nil
}

func millisParam(d time.Duration) []byte { return fmt.Appendf(nil, "%d", d.Milliseconds()) }
