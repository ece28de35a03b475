package sqlite

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// space knows the room on the disk, and keeps a reserve of it: a file beside the
// database that holds nothing. To end, cancel or delete a job the log needs room, and
// so do checkpoints, which alone make room again. When there is none left for those
// the file is made shorter, a step each time, so that no other program finds the room
// first; nothing else may use it. It is made whole again when there is room for that.
//
// Every byte that is stored is written twice, first to the log and then to the
// database. The second time comes later: what is owed is that part.
type space struct {
	// Set once.
	path        string               // of the database
	reserveSize int64                // of the reserve; 0 for none
	keepFree    int64                // see Options.KeepFree
	free        func() (int64, bool) // nil when nobody knows
	log         *slog.Logger

	reserveBytes atomic.Int64 // bytes of the reserve that are on the disk
	dbPages      atomic.Int64 // of the database with its log, at the last look
	writtenSince atomic.Int64 // bytes that were stored since

	mu       sync.Mutex // held while the reserve is made or removed
	reported bool       // guarded by mu: that the reserve is in use
}

// eager is how much more room than is kept free a store has that does not hurry to
// give pages back.
const vacuumMargin = 8 << 20

func newSpace(path string, o Options) *space {
	p := &space{path: path, reserveSize: o.Reserve, keepFree: o.KeepFree, free: o.Free, log: o.Log}
	return p
}

func (p *space) reservePath() string { return p.path + "-reserve" }

// open gives the store room to open in: a disk that is full has the reserve of the
// process before.
func (p *space) open() {
	info, err := os.Stat(p.reservePath())
	if err != nil || p.reserveSize == 0 {
		return
	}
	p.reserveBytes.Store(info.Size())
	for !p.fits(openSpace) && p.shrinkReserve() {
	}
}

// close leaves a reserve for the next opening: where there is not room for all of it,
// as much as there is room for.
func (p *space) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == nil {
		return
	}
	if free, known := p.free(); known {
		_ = p.growReserveLocked(min(p.reserveBytes.Load()+free, p.reserveSize)) // what there is of it serves
	}
}

// missing is how many bytes the reserve lacks.
func (p *space) missing() int64 { return max(p.reserveSize-p.reserveBytes.Load(), 0) }

// roomToOpen is what a store needs to open: the memory that connections share, the
// first frames of a log.
const openSpace = 1 << 20

// fits says whether so many bytes are free; yes when nobody knows.
func (p *space) fits(bytes int64) bool {
	if p.free == nil {
		return true
	}
	free, known := p.free()
	return !known || free >= bytes
}

// room is how many bytes may be written to the disk: without what is owed, and
// without what the reserve lacks.
func (p *space) available() (bytes int64, known bool) {
	if p.free == nil {
		return 0, false
	}
	free, known := p.free()
	if !known {
		return 0, false
	}
	return free - p.uncheckpointed() - p.missing(), true
}

// owed is how far the database will grow when the log is copied into it.
func (p *space) uncheckpointed() int64 {
	info, err := os.Stat(p.path)
	if err != nil {
		return 0
	}
	return max(p.dbPages.Load()*pageSize+p.writtenSince.Load()-info.Size(), 0)
}

// logSize is how long the file of the log is.
func (p *space) logSize() int64 {
	info, err := os.Stat(p.path + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}

// low says whether there is so little room that pages are given back in a hurry.
func (p *space) low() bool {
	available, known := p.available()
	return known && available < p.keepFree+vacuumMargin
}

// giveStep is how many bytes of the reserve are given at a time.
const reserveStep = 1 << 20

// give makes the reserve shorter, by a step, and says whether it could.
func (p *space) shrinkReserve() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	size := p.reserveBytes.Load()
	if size <= 0 {
		return false
	}
	if !p.reported {
		p.reported = true
		p.log.Error("the disk is full: jobs still end, and can be cancelled and deleted, in the room that is held in reserve", "bytes", size)
	}
	less := max(size-reserveStep, 0)
	if err := os.Truncate(p.reservePath(), less); err != nil {
		p.log.Error("the reserve on the disk cannot be used", "error", err)
		return false
	}
	p.reserveBytes.Store(less)
	return true
}

// take makes the reserve whole when there is room for it.
func (p *space) fillReserve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.missing() == 0 {
		return
	}
	if available, known := p.available(); known && available < 0 {
		return
	}
	err := p.growReserveLocked(p.reserveSize)
	switch {
	case err != nil && !p.reported:
		p.reported = true
		p.log.Warn("there is no room on the disk for the reserve, and no new work is taken", "bytes", p.reserveSize, "error", err)
	case err == nil && p.reported:
		p.reported = false
		p.log.Info("the reserve on the disk is whole again", "bytes", p.reserveSize)
	}
}

// makeLocked makes the reserve so long, with what a file system can neither compress
// nor leave out.
func (p *space) growReserveLocked(size int64) error {
	f, err := os.OpenFile(p.reservePath(), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	before := p.reserveBytes.Load()
	noise, buf := rand.NewPCG(1, uint64(before)), make([]byte, 64<<10)
	for at := before; at < size && err == nil; at += int64(len(buf)) {
		buf = buf[:min(size-at, int64(cap(buf)))]
		for i := 0; i+8 <= len(buf); i += 8 {
			binary.LittleEndian.PutUint64(buf[i:], noise.Uint64())
		}
		_, err = f.WriteAt(buf, at)
	}
	if err == nil {
		err = f.Sync() // some file systems find out now that there is no room
	}
	if err == nil {
		p.reserveBytes.Store(max(size, before))
	} else {
		_ = f.Truncate(before)
	}
	return errors.Join(err, f.Close())
}

// FreeSpace returns how many bytes new work may write to the disk. Known is false where the
// system does not tell.
func (s *Store) FreeSpace() (bytes int64, known bool) {
	if s.mu.TryLock() { // else a commit is under way, and the last look does
		s.updatePagesLocked()
		s.mu.Unlock()
	}
	return s.space.available()
}

// lookLocked notes how large the database is with its log. A look that fails leaves
// the last one.
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

// mayUseReserve says whether a batch only ends, cancels, deletes and renews, or has the
// output that comes before an end, and fits into the reserve.
func (s *Store) mayUseReserve(b *store.Batch) bool {
	adds := len(b.Pauses) + len(b.Retries) + len(b.Writes) + len(b.Submits) + len(b.Dues) + len(b.Claims)
	return adds == 0 && batchBytes(b) <= s.space.reserveSize/2
}

// makeRoom makes room for a batch that met the disk full, and says whether the batch is
// to be applied again: first the log is begun anew, then the reserve is given to it. A
// batch whose COMMIT failed gets that whatever it holds: all of its frames are in the
// log, and only the index of the log had no room, so that to take it back is not certain.
func (s *Store) freeSpaceFor(b *store.Batch, err error, try int) bool {
	if !errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrNotCommitted) && !s.mayUseReserve(b) {
		return false
	}
	if try == 0 && s.restartLog() {
		return true
	}
	if !s.space.shrinkReserve() {
		return false
	}
	s.restartLog() // what was held up by the full disk is copied now
	return true
}

// tooMuch says of a batch that it would use up what is left of the reserve: once some of
// that is given away, output leaves a half of it to ends, and ends leave a quarter to
// cancels and deletes. What is small is taken while the log can be begun anew: then it
// takes nothing of the disk.
func (s *Store) exceedsReserve(b *store.Batch) bool {
	if s.space.missing() == 0 || len(b.Appends)+len(b.Finishes) == 0 {
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

// smallBatch is how much a batch writes at most that a log with nothing in it surely
// has room for.
const smallBatchBytes = 256 << 10

// restartLog copies the log into the database, so that the next commit writes over it,
// and says whether all of it was copied.
func (s *Store) restartLog() (whole bool) {
	s.conn.SetBusyTimeout(readerTimeout)
	defer s.conn.SetBusyTimeout(busyTimeout)
	_, err := s.q.restart.first(func(c column) error {
		whole = c.int(0) == 0 && c.int(1) == c.int(2)
		return nil
	})
	return whole && err == nil
}

// weight is about how many bytes of log a batch makes: its data, and what stands
// beside it.
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
