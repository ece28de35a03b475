package sqlite

import (
	"errors"
	"maps"
	"math/bits"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// runningBits record on disk which rows belong to running jobs, so that an opening finds them.
// addRunning and removeRunning keep them in step with the memory; a batch writes them once, at
// its end.
type runningBits struct {
	words map[int64]*bitWord // by row number / 64
	dirty []int64            // words that the batch changed
}

type bitWord struct {
	bits  uint64
	dirty bool
}

func (m *runningBits) set(n int64, running bool) {
	k := m.words[n>>6]
	if k == nil {
		k = &bitWord{}
		m.words[n>>6] = k
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

// addRunning adds a job that now runs to the memory.
func (t *tx) addRunning(h *runningJob) {
	t.running[h.ID] = h
	t.tokens[h.Lease.Token] = h.ID
	t.runningBits.set(h.N, true)
}

// removeRunning removes a job that no longer runs from the memory.
func (t *tx) removeRunning(j *ops.Job) {
	if h := t.running[j.ID]; h.published {
		t.toPublish = append(t.toPublish, h)
	}
	t.runningBits.set(j.N, false)
	delete(t.running, j.ID)
	delete(t.tokens, j.Lease.Token)
}

// saveRunningBits writes the words that the batch changed.
func (t *tx) saveRunningBits() error {
	m := &t.runningBits
	for _, n64 := range m.dirty {
		k := m.words[n64]
		k.dirty = false
		var err error
		if k.bits != 0 {
			err = t.q.setRunningBits.int(n64).int(int64(k.bits)).run()
		} else {
			delete(m.words, n64)
			err = t.q.deleteRunningBits.int(n64).run()
		}
		if err != nil {
			return err
		}
	}
	m.dirty = m.dirty[:0]
	return nil
}

// loadRunning loads the running jobs into the memory.
func (s *Store) loadRunning(load *ops.Load) error {
	s.runningBits = runningBits{words: map[int64]*bitWord{}}
	// Under the same lease, the memory has fields that the disk lacks. Keep them.
	before := maps.Clone(s.running)
	clear(s.running)
	clear(s.tokens)
	s.damagedJobs = nil
	err := s.q.loadRunningBits.each(func(c column) error {
		s.runningBits.words[c.int(0)] = &bitWord{bits: uint64(c.int(1))}
		return nil
	})
	for n64, k := range s.runningBits.words {
		// Clearing the lowest bit visits each running row once.
		for left := k.bits; left != 0 && err == nil; left &= left - 1 {
			_, err = s.q.runningRow.int(n64<<6 | int64(bits.TrailingZeros64(left))).first(s.loadRunningJob)
		}
	}
	for _, h := range s.running {
		load.Running(&h.Job.Job)
		if err == nil {
			err = s.loadOutput(h)
		}
	}
	if err == nil {
		err = s.loadTail()
	}
	for id, h := range s.running {
		if b := before[id]; b != nil && b.Lease.Token == h.Lease.Token {
			h.Lease.AttemptStartedAt, h.Lease.LastOutputAt = b.Lease.AttemptStartedAt, b.Lease.LastOutputAt
		}
	}
	s.publishLoaded()
	return err
}

// loadRunningJob loads a running job. The next batch ends one with a damaged row.
func (s *Store) loadRunningJob(c column) error {
	j := scanJobRow(c)
	if j.Damaged {
		s.damagedJobs = append(s.damagedJobs, j.ID)
	}
	const at = afterJobColumns
	j.Deleted, j.IdempotencyKey = c.int(at+3) != 0, c.text(at+4)
	j.Lease = ops.Lease{
		Token: c.token(at), Worker: c.text(at + 1), Process: job.Process(c.token(at + 7)),
		For: time.Duration(c.int(at+5)) * time.Millisecond, Until: c.time(at + 2), Used: c.int(at+6) != 0,
		// Start and last output of an attempt are only in memory, so its clocks restart here.
		AttemptStartedAt: s.Now(), StartCursor: j.Cursor, EarlierOutputBytes: j.OutputBytes,
	}
	// The lease is older than migration 0012.
	if c.stmt.ColumnIsNull(at + 5) {
		j.Lease.For = j.Policy.Timeouts.Lease
	}
	s.running[j.ID] = &runningJob{Job: j}
	s.tokens[j.Lease.Token] = j.ID
	return nil
}

// loadOutput reads from the log what a running job's row does not have.
func (s *Store) loadOutput(h *runningJob) error {
	_, err := s.q.outputEnd.int(h.N).first(func(c column) error {
		h.Cursor, h.OutputBytes = c.int(0), c.int(1)
		return nil
	})
	if err != nil || h.Cursor == h.Lease.StartCursor {
		return err
	}
	h.Lease.Used = true
	// Usually the first row is enough: it is output, or a block with output.
	err = s.q.attemptOutput.int(h.N).int(h.Lease.StartCursor).each(func(c column) (err error) {
		if kind := c.int(0); kind != kindBlock {
			h.noteLoadedEntry(job.Kind(kind))
		} else {
			var block []byte
			if block, err = (jobLog{s.ring, h.ID, h.N}).open(kind, c.int(2), c.bytes(1)); err == nil {
				err = eachEntry(block, func(e job.Entry) { h.noteLoadedEntry(e.Kind) })
			}
		}
		if err == nil && h.Lease.HasOutput {
			err = errStop
		}
		return err
	})
	if errors.Is(err, errStop) || errors.Is(err, errBlock) || job.CodeOf(err) == job.EncryptionKeyMissing { // a reader of the log reports it
		err = nil
	}
	return err
}

// noteLoadedEntry notes an entry that the current attempt stored before the opening.
func (h *runningJob) noteLoadedEntry(kind job.Kind) {
	h.Lease.HasOutput = h.Lease.HasOutput || kind.IsOutput()
	if kind.ResetsIdleClock() {
		h.Lease.LastOutputAt = h.Lease.AttemptStartedAt
	}
}
