package sqlite

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// space tracks the free space of the disk and keeps a reserve: a file beside the database
// without useful content. To end, cancel or delete a job the log needs space. Checkpoints free
// space, but need some first. When the disk has no space for these, the file shrinks in small
// steps, so that no other program uses the space first. Nothing else may use the reserve. It is
// refilled when the disk has space again.
//
// Every byte is written twice: first to the log, later to the database. The space for the second
// write counts as used once the first is done.
type space struct {
	// Set once.
	path        string               // of the database
	reserveSize int64                // wanted size of the reserve; 0 for none
	keepFree    int64                // see Options.KeepFree
	free        func() (int64, bool) // nil if the free space is never known
	log         *slog.Logger

	reserveBytes atomic.Int64 // current size of the reserve
	dbPages      atomic.Int64 // pages of the database including its log, at the last query
	writtenSince atomic.Int64 // bytes written after that query

	mu       sync.Mutex // serializes changes of the reserve
	reported bool       // guarded by mu: it was logged that the reserve is in use
}

// vacuumMargin is the space above Options.KeepFree below which the vacuum hurries.
const vacuumMargin = 8 << 20

func (p *space) reservePath() string { return p.path + "-reserve" }

// open frees the space that an opening needs: on a full disk, from the reserve that the
// previous process left.
func (p *space) open() {
	info, err := os.Stat(p.reservePath())
	if err != nil || p.reserveSize == 0 {
		return
	}
	p.reserveBytes.Store(info.Size())
	for !p.fits(openSpace) && p.shrinkReserve() {
	}
}

// close leaves as much of the reserve as fits, for the next opening.
func (p *space) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == nil {
		return
	}
	if free, known := p.free(); known {
		_ = p.growReserveLocked(min(p.reserveBytes.Load()+free, p.reserveSize)) // a smaller reserve is useful too
	}
}

// missingReserve returns how many bytes the reserve lacks.
func (p *space) missingReserve() int64 { return max(p.reserveSize-p.reserveBytes.Load(), 0) }

// openSpace is how many bytes an opening writes: the shared memory of connections and the first
// frames of a log.
const openSpace = 1 << 20

// fits reports whether the disk has room for n bytes, or its free space is unknown.
func (p *space) fits(bytes int64) bool {
	if p.free == nil {
		return true
	}
	free, known := p.free()
	return !known || free >= bytes
}

// available returns how many bytes may be written to the disk. Bytes that the log will copy to
// the database, and bytes that the reserve lacks, are subtracted.
func (p *space) available() (bytes int64, known bool) {
	if p.free == nil {
		return 0, false
	}
	free, known := p.free()
	if !known {
		return 0, false
	}
	return free - p.uncheckpointed() - p.missingReserve(), true
}

// uncheckpointed returns how far the database will grow when the log is copied into it.
func (p *space) uncheckpointed() int64 {
	info, err := os.Stat(p.path)
	if err != nil {
		return 0
	}
	return max(p.dbPages.Load()*pageSize+p.writtenSince.Load()-info.Size(), 0)
}

// logSize returns the size of the log's file.
func (p *space) logSize() int64 {
	info, err := os.Stat(p.path + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}

// isLow reports whether the vacuum must hurry.
func (p *space) isLow() bool {
	available, known := p.available()
	return known && available < p.keepFree+vacuumMargin
}

// reserveStep is the number of bytes by which the reserve shrinks at a time.
const reserveStep = 1 << 20

// shrinkReserve shortens the reserve by a step, and reports whether it could.
func (p *space) shrinkReserve() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	size := p.reserveBytes.Load()
	if size <= 0 {
		return false
	}
	if !p.reported {
		p.reported = true
		p.log.Error("the disk is full: the reserve is used to end, cancel and delete jobs", "bytes", size)
	}
	// Small steps keep the rest of the reserve from other programs.
	less := max(size-reserveStep, 0)
	if err := os.Truncate(p.reservePath(), less); err != nil {
		p.log.Error("the reserve on the disk cannot be used", "error", err)
		return false
	}
	p.reserveBytes.Store(less)
	return true
}

// fillReserve restores the reserve to its size if there is space.
func (p *space) fillReserve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.missingReserve() == 0 {
		return
	}
	// Space that checkpoints will need must stay free.
	if available, known := p.available(); known && available < 0 {
		return
	}
	err := p.growReserveLocked(p.reserveSize)
	switch {
	case err != nil && !p.reported:
		p.reported = true
		p.log.Warn("the disk has no space for the reserve, so no new work is accepted", "bytes", p.reserveSize, "error", err)
	case err == nil && p.reported:
		p.reported = false
		p.log.Info("the reserve on the disk is complete again", "bytes", p.reserveSize)
	}
}

// growReserveLocked grows the reserve to size, with random bytes: a file system can neither
// compress them nor leave them out.
func (p *space) growReserveLocked(size int64) error {
	f, err := os.OpenFile(p.reservePath(), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	before := p.reserveBytes.Load()
	noise := make([]byte, reserveStep+pageSize)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // never fails
	for at := before; at < size && err == nil; at += reserveStep {
		// Each step begins elsewhere, so that no block of the file is a copy of another. File
		// systems compress less than a step at a time.
		start := at / reserveStep * 509 % pageSize
		_, err = f.WriteAt(noise[start:start+min(size-at, reserveStep)], at)
	}
	if err == nil {
		err = f.Sync() // some file systems report only here that the disk is full
	}
	if err == nil {
		p.reserveBytes.Store(max(size, before))
	} else {
		_ = f.Truncate(before)
	}
	return errors.Join(err, f.Close())
}

// FreeSpace returns how many bytes new work may write to the disk. Known is false on a system that
// does not report it.
func (s *Store) FreeSpace() (bytes int64, known bool) {
	if s.mu.TryLock() { // during a commit the last values are good enough
		s.updatePagesLocked()
		s.mu.Unlock()
	}
	return s.space.available()
}

// updatePagesLocked updates the size of the database with its log. If the query fails, the last
// values stay.
func (s *Store) updatePagesLocked() {
	if s.closed || s.space.free == nil {
		return
	}
	_, _ = s.q.pages.first(func(c column) error {
		s.space.dbPages.Store(c.int(0))
		s.space.writtenSince.Store(0)
		return nil
	})
}

// mayUseReserve reports whether a batch only ends, cancels, deletes, renews or appends, and fits
// into half of the reserve.
func (s *Store) mayUseReserve(b *store.Batch) bool {
	adds := len(b.Pauses) + len(b.Retries) + len(b.Writes) + len(b.Submits) + len(b.Dues) + len(b.Claims)
	return adds == 0 && batchBytes(b) <= s.space.reserveSize/2
}

// freeSpaceFor frees space for a batch that found the disk full, and reports whether to apply
// the batch again. First it restarts the log, then it shrinks the reserve. A batch whose COMMIT
// failed may use the reserve with any ops: all of its frames are in the log and only the log's
// index had no space, so the batch may become visible anyway.
func (s *Store) freeSpaceFor(b *store.Batch, err error, try int) bool {
	if !errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrNotCommitted) && !s.mayUseReserve(b) {
		return false
	}
	// An empty log is free space too, and the reserve stays complete.
	if try == 0 && s.restartLog() {
		return true
	}
	if !s.space.shrinkReserve() {
		return false
	}
	s.restartLog() // now the copy has the space that it lacked
	return true
}

// exceedsReserve reports whether a batch would use more of the reserve than its ops may. Once
// the reserve has shrunk, appends leave half of it to ends, and ends leave a quarter to cancels
// and deletes. A small batch passes if the log can restart: overwriting needs no new space.
func (s *Store) exceedsReserve(b *store.Batch) bool {
	if s.space.missingReserve() == 0 || len(b.Appends)+len(b.Finishes) == 0 {
		return false
	}
	reserved := s.space.reserveSize / 4
	if len(b.Appends) > 0 {
		reserved = s.space.reserveSize / 2
	}
	s.updatePagesLocked()
	available, known := s.space.available()
	if size := batchBytes(b); known && available+s.space.reserveSize-2*size < reserved {
		return size > smallBatchBytes || !s.restartLog()
	}
	return false
}

// smallBatchBytes is the largest batch that surely fits into an empty log without growing it.
const smallBatchBytes = 256 << 10

// restartLog copies the log into the database, so that the next commit overwrites it. It reports
// whether all of the log was copied.
func (s *Store) restartLog() (complete bool) {
	s.conn.SetBusyTimeout(readerTimeout)
	defer s.conn.SetBusyTimeout(busyTimeout)
	_, err := s.q.restart.first(func(c column) error {
		complete = c.int(0) == 0 && c.int(1) == c.int(2)
		return nil
	})
	return complete && err == nil
}

// batchBytes estimates how many bytes of log a batch writes.
func batchBytes(b *store.Batch) int64 {
	const each = 1 << 10
	size := int64(b.Len()) * each
	for _, op := range b.Submits {
		size += int64(len(op.Input))
	}
	for _, op := range b.Appends {
		size += int64(entryBytes(op.Entries))
	}
	for _, op := range b.Finishes {
		if size += int64(entryBytes(op.Entries)); op.Result != nil {
			size += int64(len(op.Result.Body))
		}
	}
	return size
}

func entryBytes(entries []job.Entry) (size int) {
	for i := range entries {
		size += len(entries[i].Data)
	}
	return size
}
