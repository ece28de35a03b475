package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Most batches of a busy process submit jobs and end jobs that the process itself has leased. Such a
// batch needs no read: the memory has the counts and turns, and known has the jobs. A direct batch
// is sent whole, in one trip, also while the batches before it are not answered yet. Guards in its
// transaction make it fail if the database is not what it was computed from: another process has
// moved a job, or has changed one of the jobs. The caller then applies it again, with reads.
//
// While several processes are busy, guards would often fail. So a batch is direct only if no other
// process has moved a job for a while.

const (
	// aloneFor is how long no other process may have moved a job before a batch is direct.
	aloneFor = 2 * time.Second
	// maxDirectWaiting bounds the waiting jobs: after a guard has failed the memory is loaded again.
	maxDirectWaiting = 20_000
)

var (
	// A guard divides by zero when what it checks does not hold. That no other process has made a
	// move, the primary key of moves guards: each direct batch makes the next one. guardMoves finds a
	// database that was restored while there was no connection.
	guardMoves  = &statement{"guard_moves", "select 1 / coalesce((select (seq = $1::bigint and at = $2::bigint)::int from moves order by seq desc limit 1), 0)"}
	guardTokens = &statement{"guard_tokens", "select 1 / (not exists (select from jobs where token = any($1::uuid[])))::int"}
	guardIDs    = &statement{"guard_ids", "select 1 / (not exists (" + selectUsedIDs.sql + "))::int"}
	// endKnown is endJobs for jobs that were not read.
	endKnown = &statement{"end_known", "with moved as (delete from jobs j using " + unnest("i"+movedLetters+endLetters+knownLetters) +
		" u (n, " + movedNames + ", " + endNames + ", known_token, known_revision, known_cursor) where j.n = u.n and j.n = any($1::bigint[])" +
		" and j.token = u.known_token and j.revision = u.known_revision and j.cursor = u.known_cursor and not j.deleted" +
		" returning u.n, " + prefixed("j.", fixedNames) + ", " + prefixed("u.", movedNames+", "+endNames) + "), stored as (" +
		"insert into ended (n, " + fixedNames + ", " + movedNames + ", " + endNames + ") select * from moved)" +
		" select 1 / ((select count(*) from moved) = cardinality($1::bigint[]))::int"}
	updateKnownOutput = &statement{"update_known_output", updateKnownSQL(outputNames, outputLetters)}
	updateKnownLeases = &statement{"update_known_leases", updateKnownSQL(usedNames, usedLetters)}
)

// updateKnownSQL updates columns of jobs that were not read.
func updateKnownSQL(names, letters string) string {
	return "with done as (" + updateSQL(names, letters, ", known_token, known_revision, known_cursor", knownLetters) +
		" and jobs.token = u.known_token and jobs.revision = u.known_revision and jobs.cursor = u.known_cursor and not jobs.deleted returning 1)" +
		" select 1 / ((select count(*) from done) = cardinality($1::bigint[]))::int"
}

// knownLetters are the columns that a job that was not read must still have.
const knownLetters = "uii"

// errNotDirect means that a direct batch needs a read after all, or that its connection was lost
// before it was sent.
var errNotDirect = errors.New("postgres: the batch cannot be direct")

// isDirect reports whether a batch needs no read.
func (s *Store) isDirect(b *store.Batch) bool {
	if s.stale || !s.mayAssume(b) || !s.known.hasLeases(b) {
		return false
	}
	work := len(b.Submits) + len(b.Finishes) + len(b.Claims)
	switch output := len(b.Renews) + len(b.Appends); {
	case work+output != b.Len(), s.mem.SuspectIsReady():
		return false
	case work == 0: // it depends on nothing but the rows of its jobs
		return true
	}
	return s.movesAlone() && s.needsNoRead(b)
}

// movesAlone reports whether no other process has moved a job for a while.
func (s *Store) movesAlone() bool {
	return s.lastSeq > 0 && time.Since(s.foreignAt) >= s.aloneFor && time.Since(s.foldedAt) < s.folding.every
}

// needsNoRead reports whether all that the moves of a batch depend on is in memory.
func (s *Store) needsNoRead(b *store.Batch) bool {
	for _, q := range s.mem.Queues() {
		if q.Counts.Parked > 0 {
			return false
		}
	}
	if s.waiting() > maxDirectWaiting {
		return false
	}
	for _, op := range b.Submits {
		j := &op.Job
		if op.Idempotency != nil || len(op.Rows) > 0 || j.Tally != "" || len(j.Refs) > 0 || j.Policy.Timeouts.Abandon > 0 || !isStorable(j.Owner.Tenant+j.Owner.User) {
			return false
		}
	}
	for _, op := range b.Claims {
		if q := s.mem.Queue(op.Queue); q != nil && !s.known.complete(op.Queue, q.Counts.Queued) {
			return false
		}
	}
	return true
}

// waiting returns the number of waiting jobs.
func (s *Store) waiting() (n int64) {
	for _, q := range s.mem.Queues() {
		n += q.Counts.Waiting()
	}
	return n
}

// startDirect begins a direct batch: what reads would have brought is known already.
func (t *tx) startDirect(b *store.Batch) {
	s := t.s
	t.direct, t.locked, t.assumes = true, s.movesJobs(b), true
	t.now = s.Now()
	t.addBegin()
	if !t.locked {
		t.reads.add(lockProcess, nil, intParam(s.process))
	} else if t.reads.add(lockMoves, nil, intParam(movesLock)); !s.writer.sameMoves {
		t.reads.add(guardMoves, nil, intParam(s.lastSeq), intParam(s.lastAt.UnixMicro()))
		s.writer.sameMoves = true
	}
	t.assume(b)
	for _, op := range b.Renews {
		t.addKnown(op.Lease.Job)
	}
	for _, op := range b.Appends {
		t.addKnown(op.Lease.Job)
	}
	for _, op := range b.Finishes {
		t.addKnown(op.Lease.Job)
	}
}

// addKnown adds a known running job. Guards check that its row is what is known.
func (t *tx) addKnown(id job.ID) {
	if t.running[id] == nil {
		e := t.s.known.running[id].copy()
		e.known = knownRow{e.job.Lease.Token, e.job.Revision, e.job.Cursor}
		t.add(e)
	}
}

// mayAssume reports whether a batch can do without the reads of what hardly ever exists. A batch with
// answers was applied before, and may be stored.
func (s *Store) mayAssume(b *store.Batch) bool {
	return b.Counts == nil && !s.inDoubt && !s.options.alwaysRead && !s.known.hasToken(b)
}

// assume notes what a batch does not read: tokens, which are new, ids of new jobs, which no ended
// job has, and running jobs that are known and that the batch ends. Guards in its transaction make
// it fail if that is wrong: addGuard, the index of tokens, and endKnown.
func (t *tx) assume(b *store.Batch) {
	for _, op := range b.Submits {
		t.tokens[op.Token] = nil
	}
	for _, op := range b.Claims {
		for _, token := range op.Tokens {
			t.tokens[token] = nil
		}
	}
	if len(b.Renews)+len(b.Appends)+len(b.Cancels)+len(b.Deletes) > 0 || t.s.waiting() > maxDirectWaiting {
		return // they may need the locks of the rows, or a guard that fails would cost much
	}
	for _, op := range b.Finishes {
		if t.s.known.canEnd(op) {
			t.addKnown(op.Lease.Job)
		}
	}
}

// addGuard adds the guards of the ids of new jobs, and of the tokens that the batch does not write:
// where it does, their index is the guard.
func (t *tx) addGuard(b *store.Batch) {
	tokens := newTable("u")
	add := func(token job.Token) {
		if !token.IsZero() && t.tokens[token] == nil {
			tokens.uuid(token)
		}
	}
	for _, op := range b.Claims {
		for _, token := range op.Tokens {
			add(token)
		}
	}
	for _, op := range b.Submits {
		add(op.Token)
	}
	if !tokens.empty() {
		t.reads.add(guardTokens, nil, tokens.params()...)
	}
	ids := newTable("ttu")
	for _, op := range b.Submits {
		if o := op.Job.Owner; isStorable(o.Tenant + o.User) {
			ids.text(o.Tenant).text(o.User).uuid(op.Job.ID)
		}
	}
	if !ids.empty() {
		t.reads.add(guardIDs, nil, ids.params()...)
	}
}

// wasOutdated reports whether a guard made a batch fail. The next try reads everything.
func wasOutdated(err error) bool {
	switch codeOf(err) {
	case "22012", // a division by zero
		"23505": // the index of tokens
		return true
	}
	return false
}

// knownRow is what the row of a job that was not read must have.
type knownRow struct {
	token            job.Token
	revision, cursor int64
}

// outcomes are the direct batches whose outcome is not known yet, and those that must be applied
// again.
type outcomes struct {
	mu sync.Mutex
	// Guarded by mu.
	open   []*sentBatch
	again  []store.BatchID // in their order; nothing else may be applied before them
	failed bool            // a direct batch has failed since takeFailure
	moved  bool            // one of those moved a job
	recent recentBatches
}

// sentBatch is a direct batch that was sent.
type sentBatch struct {
	id    store.BatchID
	moves bool // it changed the memory
	line  *line
	x     *exchange
	open  bool // it is among outcomes.open
	err   error
}

// sendDirect sends a direct batch with its commit. It returns false if its connection was lost
// before the commit was sent.
func (s *Store) sendDirect(t *tx, id store.BatchID) (synced func() error, ok bool) {
	sent := &sentBatch{id: id, moves: t.locked, line: s.writer, open: true}
	sent.x = s.writer.send(context.Background(), t.reads.calls, s.afterCommit)
	s.outcomes.mu.Lock()
	defer s.outcomes.mu.Unlock()
	if sent.x.unsent && len(s.outcomes.open) == 0 {
		return nil, false
	}
	s.outcomes.open = append(s.outcomes.open, sent)
	return func() error { return s.await(sent) }, true
}

// await waits for the outcome of a direct batch.
func (s *Store) await(sent *sentBatch) error {
	_ = sent.line.await(context.Background(), sent.x)
	o := &s.outcomes
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.confirm(); !sent.open {
		return sent.err
	}
	// This batch or one before it has failed. Those behind that one were computed from what it would
	// have stored.
	err := o.open[0].x.err
	o.failed = true
	for _, later := range o.open {
		later.open = false
		o.moved = o.moved || later.moves
		later.err = fmt.Errorf("%w: %w", err, store.ErrUnknown)
		if codeOf(err) != "" && !endsConnection(err) {
			// A statement failed, so that the commit was not executed. The next try finds out why.
			later.err = fmt.Errorf("%w: %w", later.err, store.ErrOutdated)
		}
		o.again = append(o.again, later.id)
	}
	o.open = nil
	return sent.err
}

// confirm notes the batches that are stored, up to the first one that is not.
func (o *outcomes) confirm() {
	for len(o.open) > 0 && o.open[0].x.isDone() && o.open[0].x.err == nil {
		sent := o.open[0]
		sent.open = false
		o.recent.add(sent.id)
		o.recent.stored = append(o.recent.stored, sent.id)
		o.open = o.open[1:]
	}
}

// drain waits for the outcomes of all batches that were sent.
func (s *Store) drain() error {
	for {
		s.outcomes.mu.Lock()
		var first *sentBatch
		if len(s.outcomes.open) > 0 {
			first = s.outcomes.open[0]
		}
		s.outcomes.mu.Unlock()
		if first == nil {
			return nil
		}
		if err := s.await(first); err != nil {
			return err
		}
	}
}

// takeFailure handles the failure of direct batches: the memory has what they would have stored.
func (s *Store) takeFailure() {
	o := &s.outcomes
	o.mu.Lock()
	failed, moved := o.failed, o.moved
	o.failed, o.moved = false, false
	o.mu.Unlock()
	if !failed {
		return
	}
	s.disconnect()
	s.inDoubt, s.known = true, newKnown()
	if moved {
		s.stale, s.foreignAt = true, time.Now()
	}
}

var errAgainFirst = fmt.Errorf("postgres: batches before this one must be applied again first: %w: %w", store.ErrOutdated, store.ErrNotCommitted)

// answered returns the synced of a batch that was applied before. It refuses a batch while another
// one must be applied again.
func (s *Store) answered(id store.BatchID) (synced func() error, err error) {
	o := &s.outcomes
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.again) > 0 && o.again[0] != id {
		return nil, errAgainFirst
	}
	if o.recent.has(id) {
		return func() error { return nil }, nil
	}
	for _, sent := range o.open {
		if sent.id == id {
			return func() error { return s.await(sent) }, nil
		}
	}
	return nil, nil
}

// mustComeLater reports whether another batch than this one must be applied first.
func (s *Store) mustComeLater(id store.BatchID) bool {
	s.outcomes.mu.Lock()
	defer s.outcomes.mu.Unlock()
	return len(s.outcomes.again) > 0 && s.outcomes.again[0] != id
}

// applied notes a batch that is stored.
func (o *outcomes) applied(id store.BatchID) {
	o.over(id)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.recent.add(id)
}

// over notes that a batch is stored, or refused for good.
func (o *outcomes) over(id store.BatchID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.again) > 0 && o.again[0] == id {
		o.again = o.again[1:]
	}
}
