package sqlite

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

const (
	// fullBlock is how many bytes of entries become a row of a job's log. An append of that
	// size goes to the log directly.
	fullBlock = 256
	// initialBlock is the first capacity of a block. Most jobs have little output, and
	// thousands of blocks that grow step by step fragment the memory.
	initialBlock = 64
	// maxTailBytes is the size of the tail above which jobs with old rows in it are flushed to
	// their logs early.
	maxTailBytes = 8 << 20
	// A commit trims the tail when at least minTrim rows are unused, by at most maxTrim rows.
	minTrim         = 512
	maxTrim         = 1024
	tailRowOverhead = 32 // approximate bytes of a row besides its data
)

// tail is the output of running jobs that is not in their logs yet.
//
// An append is a few bytes, and each job's log has its own pages: a commit with one word for
// each of a hundred jobs would write a hundred pages. Instead, entries go to the end of one
// table in the order in which they arrive. The same entries are kept in memory, by job, as a
// block. When the block is full, or the attempt is over, it becomes one row of the job's log,
// and its rows of the table are unused. The table is read only when the store opens.
//
// Owned by the commit.
type tail struct {
	lastRow  int64          // the last row number used, also by a failed batch: none is used twice
	firstRow int64          // no row before it exists
	bytes    int64          // of all rows that were ever added
	starts   []pendingStart // jobs with rows in use, oldest first; some entries are out of date
}

// pendingStart is the first row that a job uses in the tail.
type pendingStart struct {
	job job.ID
	row int64
	at  int64 // bytes that were added before it
}

// add counts a row that was written or loaded.
func (t *tail) add(h *runningJob, row int64, size int) {
	if h.firstTailRow == 0 {
		h.firstTailRow = row
		t.starts = append(t.starts, pendingStart{h.ID, row, t.bytes})
	}
	t.bytes += int64(size) + tailRowOverhead
}

// fitsTail reports whether entries go to the tail first. An entry that begins an attempt goes to
// the log: reads find the text of the last attempt by that entry's row in the log.
func fitsTail(entries []job.Entry) bool {
	size := 0
	for i := range entries {
		size += len(entries[i].Data)
		if entries[i].Kind == job.KindAttempt {
			return false
		}
	}
	return size < fullBlock
}

// Append appends entries to a running job's output; see [ops.OutputTx].
func (t *tx) Append(j *ops.Job, entries []job.Entry, reported bool) error {
	h := t.running[j.ID]
	t.publishLater(h)
	if fitsTail(entries) {
		return t.appendToTail(h, entries, reported)
	}
	// Large entries go to the log at once, after those that are still in the tail.
	h.progressPending = h.progressPending || reported
	if err := t.flush(h); err != nil {
		return err
	}
	return t.appendToLog(h, entries)
}

// AppendLast writes the last entries of an attempt to the log, after those in the tail; see
// [ops.OutputTx].
func (t *tx) AppendLast(j *ops.Job, entries []job.Entry) error {
	h := t.running[j.ID]
	if !fitsTail(entries) {
		if err := t.flushPending(h); err != nil {
			return err
		}
		return t.appendToLog(h, entries)
	}
	h.pending = appendBlock(h.pending, entries)
	h.AddOutput(entries, t.now)
	return t.flushPending(h)
}

// appendToTail writes entries to the tail. If the block is full with them, it goes to the job's
// log instead.
func (t *tx) appendToTail(h *runningJob, entries []job.Entry, reported bool) error {
	before := len(h.pending)
	h.pending = appendBlock(growPending(h.pending), entries)
	h.AddOutput(entries, t.now)
	h.progressPending = h.progressPending || reported
	// The new entries go to the log with the rest, without a row of the tail.
	if len(h.pending) >= fullBlock {
		return t.flush(h)
	}
	added := t.ring.Seal(sealed.Tail(h.ID, h.Cursor), h.pending[before:])
	t.tail.lastRow++
	t.tail.add(h, t.tail.lastRow, len(added))
	q := t.q.insertTail.int(t.tail.lastRow).int(h.N).int(h.Cursor).int(h.OutputBytes)
	if !reported {
		return q.null().blob(added).run()
	}
	return q.bytes(codec.EncodeProgress(h.Progress)).blob(added).run()
}

// growPending gives a block the capacity for the next entries, in two steps.
func growPending(block []byte) []byte {
	switch {
	case block == nil:
		return make([]byte, 0, initialBlock)
	case cap(block) < fullBlock:
		return append(make([]byte, 0, fullBlock), block...)
	}
	return block
}

// appendToLog writes entries to a job's log, which has all earlier entries.
func (t *tx) appendToLog(h *runningJob, entries []job.Entry) error {
	for i := range entries {
		e := &entries[i]
		h.AddOutput(entries[i:i+1], t.now)
		err := t.q.insertOutput.int(h.N).int(e.Seq).int(int64(e.Attempt)).int(int64(e.Kind)).int(int64(e.Events)).int(h.OutputBytes).
			blob(t.ring.Seal(sealed.Entry(h.ID, e.Seq), e.Data)).run()
		if err != nil {
			return err
		}
	}
	return nil
}

// flush moves the entries and the progress of a job that goes on from the tail to its log and
// its row.
func (t *tx) flush(h *runningJob) error {
	if h.progressPending {
		if err := t.q.setProgress.bytes(codec.EncodeProgress(h.Progress)).int(h.N).run(); err != nil {
			return err
		}
	}
	return t.flushPending(h)
}

// flushPending moves a job's entries from the tail to its log.
func (t *tx) flushPending(h *runningJob) error {
	if len(h.pending) == 0 {
		return nil
	}
	err := t.q.insertOutput.int(h.N).int(h.Cursor).int(int64(h.Attempt)).int(kindBlock).int(0).int(h.OutputBytes).
		blob(t.ring.Seal(sealed.Block(h.ID, h.Cursor), h.pending)).run()
	h.pending, h.firstTailRow, h.progressPending = nil, 0, false // not reused: a reader may have the block
	return err
}

// trimTail deletes unused rows of the tail. If the tail is long, it first flushes the jobs with
// the oldest rows.
func (t *tx) trimTail() error {
	if t.keyless { // its rows may be in use
		return nil
	}
	first := t.oldestPending()
	// Once the job with the oldest row is flushed, all rows before the next job's row are unused.
	for ; first != nil && t.tail.bytes-first.at > maxTailBytes; first = t.oldestPending() {
		h := t.running[first.job]
		t.publishLater(h)
		if err := t.flush(h); err != nil {
			return err
		}
	}
	// No job uses a row, so all of them may be deleted.
	upTo := t.tail.lastRow + 1
	if first != nil {
		upTo = first.row
	}
	if upTo-t.tail.firstRow < minTrim {
		return nil
	}
	t.tail.firstRow = min(upTo, t.tail.firstRow+maxTrim)
	return t.q.trimTail.int(t.tail.firstRow).run()
}

// oldestPending returns the oldest row of the tail in use, or nil.
func (t *tx) oldestPending() *pendingStart {
	for len(t.tail.starts) > 0 {
		first := &t.tail.starts[0]
		if h := t.running[first.job]; h != nil && h.firstTailRow == first.row {
			return first
		}
		t.tail.starts = t.tail.starts[1:]
	}
	t.tail.starts = nil
	return nil
}

// loadTail loads the tail's entries of running jobs. Rows whose entries are in the log already
// are unused.
func (s *Store) loadTail() error {
	// The tail names jobs by row number.
	s.tail = tail{lastRow: s.tail.lastRow}
	if s.keyless {
		return nil
	}
	jobs := make(map[int64]*runningJob, len(s.running))
	for _, h := range s.running {
		jobs[h.N] = h
	}
	err := s.q.loadTail.each(func(c column) error {
		row := c.int(0)
		if s.tail.firstRow == 0 {
			s.tail.firstRow = row
		}
		if h := jobs[c.int(1)]; h != nil && c.int(2) > h.Cursor {
			data, err := s.ring.Open(sealed.Tail(h.ID, c.int(2)), c.bytes(5))
			if job.CodeOf(err) == job.EncryptionKeyMissing {
				return err
			}
			if err != nil || !s.loadTailRow(h, c, data) {
				s.damagedJobs = append(s.damagedJobs, h.ID)
				// Later rows of the job are useless after a damaged one.
				delete(jobs, h.N)
			}
		}
		return nil
	})
	if s.tail.firstRow == 0 {
		s.tail.firstRow = s.tail.lastRow + 1
	}
	return err
}

// loadTailRow adds a row of the tail, with its plain data, to its job's output. It returns false if the row is damaged
// or does not follow the entries before.
func (s *Store) loadTailRow(h *runningJob, c column, data []byte) (ok bool) {
	n := int64(0)
	err := eachEntry(data, func(e job.Entry) {
		n++
		h.noteLoadedEntry(e.Kind)
	})
	if err != nil || n == 0 || c.int(2) != h.Cursor+n {
		return false
	}
	if reported := c.bytes(4); reported != nil {
		p, err := codec.DecodeProgress(reported)
		if err != nil {
			return false
		}
		h.Progress, h.progressPending = p, true
	}
	s.tail.add(h, c.int(0), len(data))
	h.pending = append(h.pending, data...)
	h.Cursor, h.OutputBytes, h.Lease.Used = c.int(2), c.int(3), true
	return true
}
