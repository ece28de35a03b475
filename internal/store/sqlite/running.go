package sqlite

import (
	"errors"
	"maps"
	"math/bits"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// marks say on disk which rows are of running jobs: what an opening reads them by.
// They are kept in step with the memory by hold and letGo, and written once a batch.
type marks struct {
	of    map[int64]*mark // by row number / 64
	dirty []int64         // those that the batch has touched
}

type mark struct {
	bits  uint64
	dirty bool
}

func (m *marks) set(n int64, running bool) {
	k := m.of[n>>6]
	if k == nil {
		k = &mark{}
		m.of[n>>6] = k
	}
	bit := uint64(1) << (n & 63)
	if running {
		k.bits |= bit
	} else {
		k.bits &^= bit
	}
	if !k.dirty {
		k.dirty = true
		m.dirty = append(m.dirty, n>>6)
	}
}

// hold takes a job that runs from now on into the memory.
func (t *tx) hold(h *held) {
	t.running[h.job.ID] = h
	t.tokens[h.token] = h.job.ID
	t.marks.set(h.job.n, true)
	if h.job.Suspect() {
		t.suspects.running++
	}
}

// letGo takes a job out of the memory that runs no more.
func (t *tx) letGo(id job.ID) {
	h := t.running[id]
	if h.spoke {
		t.spoken = append(t.spoken, h)
	}
	t.marks.set(h.job.n, false)
	if h.job.Suspect() {
		t.suspects.running--
	}
	delete(t.running, id)
	delete(t.tokens, h.token)
}

// saveMarks writes the marks that the batch has touched.
func (t *tx) saveMarks() error {
	m := &t.marks
	for _, n64 := range m.dirty {
		k := m.of[n64]
		k.dirty = false
		var err error
		if k.bits != 0 {
			err = t.q.setMark.int(n64).int(int64(k.bits)).run()
		} else {
			delete(m.of, n64)
			err = t.q.deleteMark.int(n64).run()
		}
		if err != nil {
			return err
		}
	}
	m.dirty = m.dirty[:0]
	return nil
}

// loadRunning takes the running jobs into the memory.
func (s *Store) loadRunning() error {
	s.marks = marks{of: map[int64]*mark{}}
	before := maps.Clone(s.running)
	clear(s.running)
	clear(s.tokens)
	s.damaged = nil
	err := s.q.loadMarks.each(func(c column) error {
		s.marks.of[c.int(0)] = &mark{bits: uint64(c.int(1))}
		return nil
	})
	for n64, k := range s.marks.of {
		for left := k.bits; left != 0 && err == nil; left &= left - 1 {
			_, err = s.q.runningRow.int(n64<<6 | int64(bits.TrailingZeros64(left))).first(s.loadHeld)
		}
	}
	for _, h := range s.running {
		if err == nil {
			err = s.loadOutput(h)
		}
	}
	if err == nil {
		err = s.loadTail()
	}
	for id, h := range s.running {
		if b := before[id]; b != nil && b.token == h.token {
			h.began, h.heard = b.began, b.heard
		}
	}
	s.tellLoaded()
	return err
}

// loadHeld takes a running job into the memory. One whose row is damaged is ended
// by the next batch.
func (s *Store) loadHeld(c column) error {
	j, err := scanRow(c)
	if err != nil {
		s.damaged = append(s.damaged, j.ID)
	}
	const at = afterJobColumns
	s.running[j.ID] = &held{
		job: j, token: c.token(at), from: j.Cursor, before: j.OutputBytes, worker: c.text(at + 1),
		until: c.time(at + 2), deleted: c.int(at+3) != 0, idem: c.text(at + 4),
		// Only the memory knows when the attempt began and was heard: its clocks start anew.
		began: s.Now(),
		lasts: time.Duration(c.int(at+5)) * time.Millisecond, used: c.int(at+6) != 0, process: job.Process(c.token(at + 7)),
	}
	if c.stmt.ColumnIsNull(at + 5) {
		s.running[j.ID].lasts = j.Policy.Timeouts.Lease
	}
	s.tokens[c.token(at)] = j.ID
	if j.Suspect() {
		s.suspects.running++
	}
	s.queue(j.Queue).Restore([]byte(j.Owner.Tenant), []byte(j.Key), job.Running, j.Priority, 0, time.Time{})
	return nil
}

// loadOutput asks the log for what the row of a running job does not keep.
func (s *Store) loadOutput(h *held) error {
	_, err := s.q.outputEnd.int(h.job.n).first(func(c column) error {
		h.job.Cursor, h.job.OutputBytes = c.int(0), c.int(1)
		return nil
	})
	if err != nil || h.job.Cursor == h.from {
		return err
	}
	h.used = true
	// The first row of the attempt that is output, or a block of anything, mostly tells.
	err = s.q.spoken.int(h.job.n).int(h.from).each(func(c column) (err error) {
		if kind := c.int(0); kind != kindBlock {
			h.loadedEntry(job.Kind(kind))
		} else {
			err = eachEntry(c.bytes(1), func(e job.Entry) { h.loadedEntry(e.Kind) })
		}
		if err == nil && h.hasOutput {
			err = errEnough
		}
		return err
	})
	if errors.Is(err, errEnough) || errors.Is(err, errBlock) { // what is damaged is told to who reads it
		err = nil
	}
	return err
}

// loadedEntry notes an entry of the attempt that was stored before the store was opened.
func (h *held) loadedEntry(kind job.Kind) {
	h.hasOutput = h.hasOutput || kind.IsOutput()
	if kind.BreaksSilence() {
		h.heard = h.began
	}
}
