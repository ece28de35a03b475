package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// Each process has the counts and turns of all queues in memory. A batch that changes them adds a
// row to the table moves in its own transaction, which holds the lock of the installation. So the
// rows have one order and no gap. Before it decides anything, a batch of another process follows
// the rows that are new to it.
//
// An opening reads one snapshot of the table queues (counts as of the move fold.seq), of the moves
// after that, and of the unfinished jobs. From time to time a batch writes the counts to queues,
// and deletes old moves. A process that was away for longer than moves are kept loads again.

var (
	beginLoad = &statement{"begin_load", "begin isolation level repeatable read read only"}
	// loadImport finds an import that has not ended; see migration 0003.
	loadImport   = &statement{"load_import", "select state from imports where state < 2"}
	loadFold     = &statement{"load_fold", "select seq, last_n from fold"}
	loadQueues   = &statement{"load_queues", "select " + countNames + ", name, paused from queues"}
	loadMoves    = &statement{"load_moves", "select seq, at, last_n, data from moves where seq > (select seq from fold) order by seq"}
	loadFoldMove = &statement{"load_fold_move", "select at from moves where seq = (select seq from fold)"}
	loadReady    = &statement{"load_ready", "select queue, lane, key, priority, turn, run_at from jobs where lane is not null order by queue, lane"}
	loadDue      = &statement{"load_due", "select queue, tenant, key from jobs where due is not null"}
	loadRunning  = &statement{"load_running", "select tenant, key, queue, priority, losses, cleared from jobs where state = 4"}
	loadIDSkew   = &statement{"load_id_skew", "select apart from created"}
	// selectMoves reads the moves that are new, and whether the last known one is still there.
	selectMoves = &statement{"select_moves", "select seq, at, last_n, case when seq > $1::bigint then data end from moves where seq >= $1::bigint order by seq"}
)

const countNames = "scheduled, queued, parked, running, succeeded, failed, cancelled, expired, retried, waiting_bytes"

// errGap means that moves are missing between those that the memory has and the next ones.
var errGap = errors.New("postgres: moves are missing")

// move is a row of the table moves.
type move struct {
	seq   int64
	at    time.Time
	lastN int64
	data  []byte
}

// eachChange calls f for each change of a move.
func (m *move) eachChange(f func(*ops.Change)) error {
	changes, err := ops.DecodeChanges(m.data)
	if err != nil {
		return fmt.Errorf("the row %d of the table moves is damaged, or of a newer version of this program: %w", m.seq, err)
	}
	for i := range changes {
		f(&changes[i])
	}
	return nil
}

func scanMove(r *record) move { return move{r.int(), r.time(), r.int(), r.bytes()} }

// refresh loads the memory if it may not match the database.
func (s *Store) refresh(ctx context.Context) error {
	if !s.stale {
		return nil
	}
	s.abandonBegun()
	if err := s.load(ctx); err != nil {
		return err
	}
	s.stale = false
	return nil
}

// load loads the memory from one snapshot of the database.
func (s *Store) load(ctx context.Context) error {
	f := flush{w: s.writer}
	mem := ops.NewMemory(true)
	l := mem.Load()
	counts := map[string]job.Counts{}
	var lastSeq, lastN int64
	var lastAt time.Time
	var damage error
	importing := false
	f.add(beginLoad, nil)
	f.add(loadImport, func(r *record) { importing = r.int() != importCopied || !s.options.Importing })
	f.add(loadFold, func(r *record) { lastSeq, lastN = r.int(), r.int() })
	f.add(loadQueues, func(r *record) {
		c := scanCounts(r)
		name := r.text()
		c.Paused = r.flag()
		counts[name] = c
	})
	f.add(loadFoldMove, func(r *record) { lastAt = r.time() })
	f.add(loadMoves, func(r *record) {
		m := scanMove(r)
		lastSeq, lastAt, lastN = m.seq, m.at, max(lastN, m.lastN)
		damage = errors.Join(damage, m.eachChange(func(c *ops.Change) { countChange(counts, c) }))
	})
	f.add(loadReady, func(r *record) {
		queue, lane, key := r.raw(), r.raw(), r.raw()
		l.Ready(queue, lane, key, int(r.int()), r.int(), r.time())
	})
	f.add(loadDue, func(r *record) { l.Scheduled(r.raw(), r.raw(), r.raw()) })
	f.add(loadRunning, func(r *record) {
		j := job.Job{Owner: job.Owner{Tenant: r.text()}, Key: r.text(), Queue: r.text()}
		j.Priority, j.Losses, j.Cleared = int(r.int()), int(r.int()), int(r.int())
		l.Running(&j)
	})
	f.add(loadIDSkew, func(r *record) { s.idSkew = r.int() })
	f.add(commit, nil)
	if err := errors.Join(f.run(ctx), damage); err != nil {
		return err
	}
	if importing {
		return ErrImporting
	}
	for name, c := range counts {
		l.Counts(name, c)
	}
	// A number that a failed batch has used is not used again.
	s.known = newKnown()
	s.mem, s.lastSeq, s.lastAt, s.lastN = mem, lastSeq, lastAt, max(s.lastN, lastN)
	return nil
}

// countChange applies a change to the counts of queues.
func countChange(counts map[string]job.Counts, c *ops.Change) {
	n := counts[c.Queue]
	switch c.Kind {
	case ops.Moved:
		n.Move(c.From, c.To, c.Bytes)
		if c.From.Ended() && c.To.Waiting() {
			n.Retried++
		}
	case ops.Paused:
		n.Paused = c.Flag
	case ops.NextSuspect, ops.SuspectParked:
		return
	}
	counts[c.Queue] = n
}

// followMoves brings the memory up to the last move. The first row must be the last known move. If
// it is missing, it was deleted with moves after it, or the database was restored to an earlier
// time. If it has another time, the restored database went on with other moves.
func (s *Store) followMoves(rows []move) error {
	switch {
	case s.lastSeq == 0:
		if len(rows) > 0 && rows[0].seq > 1 {
			return errGap
		}
	case len(rows) == 0, rows[0].seq != s.lastSeq, !rows[0].at.Equal(s.lastAt):
		return errGap
	}
	for i := range rows {
		m := &rows[i]
		if m.seq <= s.lastSeq {
			continue
		}
		if err := m.eachChange(s.mem.Follow); err != nil {
			s.stale = true
			return err
		}
		s.foreignAt = time.Now()
		s.known.forgetWaiting()
		s.lastSeq, s.lastAt, s.lastN = m.seq, m.at, max(s.lastN, m.lastN)
	}
	return nil
}

// withMemory calls f with a memory that has followed all moves.
func (s *Store) withMemory(ctx context.Context, f func(*ops.Memory)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.drain() // a failure is handled by usable
	s.takeFailure()
	if err := s.usable(ctx); err != nil {
		return err
	}
	// A caller that goes away would close the connection, which the next batch needs.
	ctx = context.WithoutCancel(ctx)
	for range 2 {
		var rows []move
		w := flush{w: s.writer}
		w.add(selectMoves, func(r *record) { rows = append(rows, scanMove(r)) }, intParam(s.lastSeq))
		err := s.clock.during(&w, func() error { return w.run(ctx) })
		if err == nil {
			err = s.followMoves(rows)
		}
		switch {
		case err == nil:
			f(s.mem)
			return nil
		case !errors.Is(err, errGap):
			s.noteLost(err)
			return err
		}
		if err := s.load(ctx); err != nil {
			s.noteLost(err)
			return err
		}
	}
	return errGap
}

// Counts returns the counts of all queues; see [store.UpkeepReader].
func (s *Store) Counts(ctx context.Context) (counts map[string]job.Counts, err error) {
	err = s.withMemory(ctx, func(m *ops.Memory) { counts = m.Counts() })
	return counts, unreadable(err)
}

// OldestQueued returns when the oldest waiting job became ready; see [store.UpkeepReader].
func (s *Store) OldestQueued(ctx context.Context, queue string) (oldest time.Time, err error) {
	err = s.withMemory(ctx, func(m *ops.Memory) {
		if q := m.Queue(queue); q != nil {
			oldest = q.OldestReady()
		}
	})
	return oldest, unreadable(err)
}

// follow brings the memory up to the last move.
func (s *Store) follow(ctx context.Context) error { return s.withMemory(ctx, func(*ops.Memory) {}) }

// suspectStuck reports whether a parked suspect can be queued by the next batch, as of the last
// follow.
func (s *Store) suspectStuck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mem.SuspectIsReady()
}

// turnsBefore returns the turns in the lanes of a job's tenant before which jobs are claimed before
// the job; see [fairqueue.TurnsBefore].
func (s *Store) turnsBefore(queue string, own fairqueue.LaneTurn) []fairqueue.LaneTurn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.mem.Queue(queue); q != nil {
		return fairqueue.TurnsBefore(q.LaneTurns(nil), own)
	}
	return nil
}

// position returns how many jobs of the queue will be claimed before a job; rank of them belong to
// the job's own tenant.
func (s *Store) position(queue, tenant string, rank int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.mem.Queue(queue); q != nil {
		return fairqueue.Position(q.TenantTurns(nil), tenant, rank)
	}
	return rank
}
