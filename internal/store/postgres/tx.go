package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// tx is one batch being applied: the [ops.Tx] of its ops. It reads what the batch names before the
// first op, keeps in memory what the ops change, and writes all of it after the last one. What the
// first read did not bring is read when an op asks for it.
//
// What was read stays valid until the end of the batch: either the batch holds the lock of the
// installation, or it has locked the rows.
type tx struct {
	ctx   context.Context
	s     *Store
	now   time.Time
	reads flush // statements that are sent with the next read

	// Jobs. An entry is in all maps that apply. A nil entry means that there is no such job.
	jobs    map[store.OwnedID]*entry
	byN     map[int64]*entry
	running map[job.ID]*entry
	tokens  map[job.Token]*entry
	lanes   map[laneName]*lane
	dirty   []*entry // entries with changes that are not written yet

	side     sideReads
	out      *writes
	wrote    bool  // something was written
	locked   bool  // the batch holds the lock of all moves
	direct   bool  // the batch reads nothing; see direct.go
	assumes  bool  // the batch leaves out some reads; see direct.go
	failed   error // of encoding a row
	prunable map[int64]*prunable
	usedIDs  map[store.OwnedID]bool // of new jobs, that ended jobs have
	bytes    int64                  // by how much the batch changes what Size counts
}

// sideReads is what the batch knows of other things than jobs.
type sideReads struct {
	keys    map[ops.OwnedKey]*keyState
	rows    map[ops.RowID]*rowState
	sets    map[store.RowSet]*setState
	tallies map[ops.Tally]*job.Counts
	kept    map[job.Owner]int64
	output  map[int64][]job.Entry // entries that are not written yet, by the number of their job
}

// place is the table of a job's row.
type place uint8

const (
	nowhere place = iota
	unfinished
	ended
)

// change says which columns of an unfinished job have changed.
type change uint8

const (
	changedLease  change = 1 << iota // a renewal
	changedOutput                    // output was appended
	changedState                     // any column may have changed
)

// entry is a job that the batch has read or made.
type entry struct {
	job    *ops.Job
	stored place // the table that has the row now
	place  place // the table that it belongs in
	change change
	listed bool // it is in tx.dirty

	queued   bool   // the job is in a lane
	lane     string // its name
	queueBy  time.Time
	bytes    int64 // what Size counts for the job besides its output
	input    []byte
	inputErr error  // why the input that was read cannot be opened
	hasInput bool   // input was read, or is new
	isNew    bool   // input is not written yet
	extra    []byte // of a new job
	result   *job.Result
	replace  bool // the whole row is written again: it was damaged
	known    knownRow
}

func newTx(ctx context.Context, s *Store) *tx {
	t := &tx{
		ctx: ctx, s: s,
		jobs: map[store.OwnedID]*entry{}, byN: map[int64]*entry{}, running: map[job.ID]*entry{},
		tokens: map[job.Token]*entry{}, lanes: map[laneName]*lane{}, prunable: map[int64]*prunable{}, usedIDs: map[store.OwnedID]bool{},
	}
	t.reads.w = s.writer
	t.out = newWrites()
	t.side = sideReads{
		keys: map[ops.OwnedKey]*keyState{}, rows: map[ops.RowID]*rowState{}, sets: map[store.RowSet]*setState{},
		tallies: map[ops.Tally]*job.Counts{}, kept: map[job.Owner]int64{}, output: map[int64][]job.Entry{},
	}
	return t
}

// Now is the store's clock; see [ops.Tx].
func (t *tx) Now() time.Time { return t.now }

// read sends the statements that were added to reads.
func (t *tx) read() error {
	if t.direct {
		return errNotDirect
	}
	return t.reads.run(t.ctx)
}

// addRow adds a job that was read, unless the batch knows it already. It returns the entry of the
// job.
func (t *tx) addRow(e *entry) *entry {
	if known := t.byN[e.job.N]; known != nil {
		return known
	}
	t.add(e)
	if e.queued {
		t.enter(e, e.lane)
	}
	return e
}

func (t *tx) add(e *entry) {
	j := e.job
	t.byN[j.N] = e
	t.jobs[store.OwnedID{Owner: j.Owner, ID: j.ID}] = e
	if j.State == job.Running {
		t.running[j.ID] = e
		t.tokens[j.Lease.Token] = e
	}
}

// changed notes a change of a job's row.
func (t *tx) changed(e *entry, c change) {
	e.change |= c
	if !e.listed {
		e.listed = true
		t.dirty = append(t.dirty, e)
	}
}

// detach gives the entry a copy of its job: the answer of the op keeps the one that it has.
func (t *tx) detach(e *entry) {
	j := *e.job
	e.job = &j
}

// stop takes a job out of the running ones.
func (t *tx) stop(e *entry) {
	j := e.job
	if t.running[j.ID] == e {
		t.running[j.ID] = nil
	}
	if t.tokens[j.Lease.Token] == e {
		t.tokens[j.Lease.Token] = nil
	}
	t.detach(e)
	e.job.Lease = ops.Lease{}
}

// prunable has more columns of a job that Prunable has read.
type prunable struct {
	bytes     int64 // as in entry
	bodyBytes int64 // of input and result
}

// laneName names a lane of a queue.
type laneName struct{ queue, name string }

// lane is what the batch knows of a lane: its first jobs.
type lane struct {
	entries []*entry // may have jobs that have left the lane, and a job twice
	sorted  bool
	all     bool  // no other job is in the lane
	turn, n int64 // otherwise no other job is before this turn and number
}

func (t *tx) lane(queue, name string) *lane {
	k := laneName{queue, name}
	l := t.lanes[k]
	if l == nil {
		l = &lane{turn: -1 << 63}
		t.lanes[k] = l
	}
	return l
}

// enter puts a waiting job into a lane.
func (t *tx) enter(e *entry, name string) {
	e.queued, e.lane = true, name
	l := t.lane(e.job.Queue, name)
	l.entries, l.sorted = append(l.entries, e), false
}

// setInput sets the input that was read.
func (e *entry) setInput(ring *sealed.Ring, stored []byte) {
	e.hasInput = true
	e.input, e.inputErr = ring.Open(sealed.Input(e.job.ID), stored)
}

// leave takes a job out of its lane.
func (e *entry) leave() { e.queued, e.lane = false, "" }

// tidy sorts the entries that are in the lane, and drops the others.
func (l *lane) tidy(name string) {
	l.entries = slices.DeleteFunc(l.entries, func(e *entry) bool { return !e.queued || e.lane != name || e.place != unfinished })
	if !l.sorted {
		slices.SortFunc(l.entries, func(a, b *entry) int {
			if a.before(b.job.Turn, b.job.N) {
				return -1
			} else if b.before(a.job.Turn, a.job.N) {
				return 1
			}
			return 0
		})
		l.entries = slices.Compact(l.entries)
		l.sorted = true
	}
}

func (e *entry) before(turn, n int64) bool {
	return e.job.Turn < turn || e.job.Turn == turn && e.job.N < n
}

// known returns how many of the first limit entries are certainly the first of the lane.
func (l *lane) known(limit int) (n int) {
	for n < min(limit, len(l.entries)) && (l.all || !l.after(l.entries[n])) {
		n++
	}
	return n
}

// after reports whether an entry is behind what is known of the lane.
func (l *lane) after(e *entry) bool {
	return e.job.Turn > l.turn || e.job.Turn == l.turn && e.job.N > l.n
}

// first returns the first jobs of a lane.
func (t *tx) first(queue, name string, limit int) (list []*ops.Job, err error) {
	l := t.lane(queue, name)
	for {
		l.tidy(name)
		n := l.known(limit)
		if n < limit && !l.all {
			if t.direct {
				t.knownLane(queue, name, limit-n)
				continue
			}
			t.readLane(queue, name, limit-n)
			if err := t.read(); err != nil {
				return nil, err
			}
			continue
		}
		for _, e := range l.entries[:n] {
			list = append(list, e.job)
		}
		return list, nil
	}
}

// readLane reads the next jobs of a lane with their inputs.
func (t *tx) readLane(queue, name string, limit int) {
	l := t.lane(queue, name)
	rows := 0
	turn, n := l.turn, l.n
	t.reads.add(selectLane, func(r *record) {
		rows++
		e := t.addRow(scanUnfinished(r))
		if !e.hasInput {
			e.setInput(t.s.ring, r.bytesAt(unfinishedColumns))
		}
		// The row has the place that the job had before the batch moved it.
		turn, n = r.intAt(turnColumn), r.intAt(0)
		if rows == limit {
			l.turn, l.n = turn, n
		}
	}, []byte(queue), []byte(name), intParam(l.turn), intParam(l.n), intParam(int64(limit)))
	t.reads.calls[len(t.reads.calls)-1].done = func(string) { l.all = rows < limit }
}

// knownLane is readLane for a direct batch.
func (t *tx) knownLane(queue, name string, limit int) {
	l := t.lane(queue, name)
	list := t.s.known.after(queue, name, l.turn, l.n, limit)
	for _, e := range list {
		l.turn, l.n = e.job.Turn, e.job.N
		if t.byN[e.job.N] == nil {
			t.addRow(e.copy())
		}
	}
	l.all = len(list) < limit
}

// Damaged lists no jobs: an op that reads a damaged row ends its job; see [ops.LeaseTx].
func (t *tx) Damaged() ([]*ops.Job, error) { return nil, nil }

// Ready reads queued jobs; see [ops.LineTx].
func (t *tx) Ready(queue, lane string, limit int) ([]*ops.Job, error) {
	return t.first(queue, lane, limit)
}

// Parked reads parked jobs; see [ops.LineTx].
func (t *tx) Parked(queue, lane string, limit int) ([]*ops.Job, error) {
	return t.first(queue, lane, limit)
}
