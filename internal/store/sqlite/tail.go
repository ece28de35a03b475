package sqlite

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	// fullBlock is how many bytes of entries are worth a row of a job's log. What is
	// said at once and is more goes there directly.
	fullBlock = 256
	// firstBlock is how many bytes a block has room for at first: many jobs say little,
	// and thousands whose blocks grow step by step leave the memory in pieces.
	initialBlock = 64
	// mostTail is how many bytes the tail may hold before the jobs that hold it up, by
	// saying little, get a row of the log early.
	maxTailBytes = 8 << 20
	// A commit deletes rows of the tail that nobody needs any more when there are
	// worthTrim of them, and no more than mostTrim.
	minTrim         = 512
	maxTrim         = 1024
	tailRowOverhead = 32 // bytes that a row costs besides its data, about
)

// tail is what running jobs have said and is not in their logs yet.
//
// An append is a few bytes, and each job's log lies in pages of its own: a commit
// that carries a word of each of a hundred jobs would write a hundred pages. So it
// writes them, in the order in which they come, to the end of one table. The same
// entries are kept in memory, by job, as a block; when that is full, or the
// attempt is over, it becomes one row of the job's log, and its rows of the table are
// void. The table is read only when the store opens.
//
// Owned by the commit.
type tail struct {
	lastRow  int64          // the row that was written last, by any batch: no number is given twice
	firstRow int64          // no row before it is left
	bytes    int64          // of all rows that were ever added
	starts   []pendingStart // jobs, by the first of their rows that is not void; some have gone
}

// head is the first row of a running job's that was not void when it was added.
type pendingStart struct {
	job job.ID
	row int64
	at  int64 // bytes that were added before it
}

// add counts a row that was written, or read, after those before it.
func (t *tail) add(h *runningJob, row int64, size int) {
	if h.firstTailRow == 0 {
		h.firstTailRow = row
		t.starts = append(t.starts, pendingStart{h.job.ID, row, t.bytes})
	}
	t.bytes += int64(size) + tailRowOverhead
}

// small says whether entries are worth going to the tail first. A restart is not: the
// log finds what an attempt said by it.
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

// sayAside writes entries that follow to the tail, or, with what the job said there
// before, into its log when that is worth a row.
func (t *tx) appendToTail(h *runningJob, entries []job.Entry, p *job.Progress) error {
	before := len(h.pending)
	h.pending = appendBlock(growPending(h.pending), entries)
	h.noteEntries(entries, t.now)
	h.progressPending = h.progressPending || p != nil
	if len(h.pending) >= fullBlock {
		return t.flush(h)
	}
	added := h.pending[before:]
	t.tail.lastRow++
	t.tail.add(h, t.tail.lastRow, len(added))
	q := t.q.insertTail.int(t.tail.lastRow).int(h.job.n).int(h.job.Cursor).int(h.job.OutputBytes)
	if p == nil {
		return q.null().blob(added).run()
	}
	return q.bytes(encodeProgress(*p)).blob(added).run()
}

// roomy gives a block that was begun the room of a full one.
func growPending(block []byte) []byte {
	switch {
	case block == nil:
		return make([]byte, 0, initialBlock)
	case cap(block) < fullBlock:
		return append(make([]byte, 0, fullBlock), block...)
	}
	return block
}

// sayInLog writes entries that follow into a job's log, which has all that it said
// before.
func (t *tx) appendToLog(h *runningJob, entries []job.Entry) error {
	for i := range entries {
		e := &entries[i]
		h.noteEntries(entries[i:i+1], t.now)
		err := t.q.insertOutput.int(h.job.n).int(e.Seq).int(int64(e.Attempt)).int(int64(e.Kind)).int(int64(e.Events)).int(h.job.OutputBytes).blob(e.Data).run()
		if err != nil {
			return err
		}
	}
	return nil
}

// sayLast writes the entries that an attempt ends with into the log, with all that it
// has in the tail.
func (t *tx) appendLast(h *runningJob, entries []job.Entry) error {
	if !fitsTail(entries) {
		if err := t.flushPending(h); err != nil {
			return err
		}
		return t.appendToLog(h, entries)
	}
	h.pending = appendBlock(h.pending, entries)
	h.noteEntries(entries, t.now)
	return t.flushPending(h)
}

// intoLog moves what a job, which goes on, has in the tail into its log and its row.
func (t *tx) flush(h *runningJob) error {
	if h.progressPending {
		if err := t.q.setProgress.bytes(encodeProgress(h.job.Progress)).int(h.job.n).run(); err != nil {
			return err
		}
	}
	return t.flushPending(h)
}

// blockIntoLog moves the entries that a job has in the tail into its log.
func (t *tx) flushPending(h *runningJob) error {
	if len(h.pending) == 0 {
		return nil
	}
	err := t.q.insertOutput.int(h.job.n).int(h.job.Cursor).int(int64(h.job.Attempt)).int(kindBlock).int(0).int(h.job.OutputBytes).blob(h.pending).run()
	h.pending, h.firstTailRow, h.progressPending = nil, 0, false // a reader may have the old block
	return err
}

// trimTail deletes rows of the tail that are void, and makes some void when it has
// become long.
func (t *tx) trimTail() error {
	first := t.oldestPending()
	for ; first != nil && t.tail.bytes-first.at > maxTailBytes; first = t.oldestPending() {
		h := t.running[first.job]
		t.publishLater(h)
		if err := t.flush(h); err != nil {
			return err
		}
	}
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

// oldestAside is the head of all rows that are not void; nil when there is none.
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

// loadTail takes what running jobs have in the tail into the memory. Rows whose
// entries are in the log already are void.
func (s *Store) loadTail() error {
	jobs := make(map[int64]*runningJob, len(s.running))
	for _, h := range s.running {
		jobs[h.job.n] = h
	}
	s.tail = tail{lastRow: s.tail.lastRow}
	err := s.q.loadTail.each(func(c column) error {
		row := c.int(0)
		if s.tail.firstRow == 0 {
			s.tail.firstRow = row
		}
		if h := jobs[c.int(1)]; h != nil && c.int(2) > h.job.Cursor {
			if !s.loadTailRow(h, c) {
				s.damagedJobs = append(s.damagedJobs, h.job.ID)
				delete(jobs, h.job.n)
			}
		}
		return nil
	})
	if s.tail.firstRow == 0 {
		s.tail.firstRow = s.tail.lastRow + 1
	}
	return err
}

// loadAside adds a row of the tail to what its job has said; it says whether the row
// follows, and is whole.
func (s *Store) loadTailRow(h *runningJob, c column) (ok bool) {
	data := c.bytes(5)
	n := int64(0)
	err := eachEntry(data, func(e job.Entry) {
		n++
		h.noteLoadedEntry(e.Kind)
	})
	if err != nil || n == 0 || c.int(2) != h.job.Cursor+n {
		return false
	}
	if err := decode(c, 4, &h.job.Progress); err != nil {
		return false
	}
	s.tail.add(h, c.int(0), len(data))
	h.progressPending = h.progressPending || !c.stmt.ColumnIsNull(4)
	h.pending = append(h.pending, data...)
	h.job.Cursor, h.job.OutputBytes, h.leaseUsed = c.int(2), c.int(3), true
	return true
}

// said counts entries that follow.
func (h *runningJob) noteEntries(entries []job.Entry, now time.Time) {
	for i := range entries {
		h.job.Cursor = entries[i].Seq
		h.job.OutputBytes += int64(len(entries[i].Data))
		h.hasOutput = h.hasOutput || entries[i].Kind.IsOutput()
		if entries[i].Kind.ResetsIdleClock() {
			h.heardAt = now
		}
	}
}
