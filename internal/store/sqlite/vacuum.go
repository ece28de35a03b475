package sqlite

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// vacuum gives pages that nothing needs back to the file system, so that a
// database that was large for a day does not stay so. It has a goroutine of its own,
// which startVacuum starts and stop ends.
//
// Free pages are not given back when they would be needed again soon: of a window
// of time, only those that were free all the while count, and some are kept. Where the
// disk is nearly full all of them are given back at once: that is what a delete makes
// room by. It works in steps of about two milliseconds between commits, and not while one is
// under way. When there is nothing to give and nothing is written, nothing happens.
type vacuum struct {
	// Set once.
	log        *slog.Logger
	commits    sync.Locker // held during a step; see try
	tryCommits func() bool // takes pace, unless a commit has it
	conn       *sqlite.Conn
	countFree  *query
	logGrew    func(bytes int64) // that the log has grown
	lowSpace   func() bool       // whether the disk is nearly full
	freeLog    func() bool       // makes room in the log, if need be by what is held in reserve

	trusted func() bool // whether the file can be trusted: else it stays as it is

	work chan struct{}
	quit chan struct{}
	done sync.WaitGroup

	// Owned by run.
	window    window
	hurry     bool  // the disk was nearly full at the last look
	stepPages int64 // pages of the next step
	failing   bool  // the last step failed, and that was said
}

const (
	freeWindow  = 30                    // seconds, one look in each
	freeReserve = 16 << 20 / pageSize   // pages that are kept in any case
	stepEvery   = 50 * time.Millisecond // between two steps
	stepTime    = 2 * time.Millisecond  // what a step should take
	firstStep   = 16                    // pages
	maxStep     = 256
)

// window is how many pages were free at the last looks.
type window struct {
	samples []int64
	pages   int64 // of the whole file, at the last look
}

// add adds a look.
func (w *window) add(free, pages int64) {
	w.samples, w.pages = append(w.samples, free), pages
	if len(w.samples) > freeWindow {
		w.samples = w.samples[1:]
	}
}

// spare is how many pages nothing needed during the window, beyond the reserve: a
// tenth of the file, and no less than a fixed size.
func (w *window) spare() int64 {
	if len(w.samples) < freeWindow {
		return 0
	}
	minFree := w.samples[0]
	for _, free := range w.samples {
		minFree = min(minFree, free)
	}
	return max(minFree-max(freeReserve, w.pages/10), 0)
}

// free is how many pages were free at the last look.
func (w *window) free() int64 {
	if len(w.samples) == 0 {
		return 0
	}
	return max(w.samples[len(w.samples)-1], 0)
}

// spare is how many pages are to be given back.
func (v *vacuum) spare() int64 {
	if v.hurry {
		return v.window.free()
	}
	return v.window.spare()
}

// gave notes that pages were given back: that they are gone says nothing of need.
func (w *window) removed(n int64) {
	for i := range w.samples {
		w.samples[i] -= n
	}
	w.pages -= n
}

func (s *Store) startVacuum(log *slog.Logger) error {
	countFree, err := prepare(s.conn, "SELECT freelist_count, page_count FROM pragma_freelist_count(), pragma_page_count()")
	if err != nil {
		return err
	}
	s.vacuum = &vacuum{
		log: log, commits: &s.mu, tryCommits: s.mu.TryLock, conn: s.conn, countFree: countFree, logGrew: s.checkpointer.wrote, trusted: s.trusted,
		lowSpace: s.space.low, freeLog: func() bool { return s.restartLog() || s.space.shrinkReserve() && s.restartLog() },
		work: make(chan struct{}, 1), quit: make(chan struct{}), stepPages: firstStep,
	}
	s.vacuum.done.Go(s.vacuum.run)
	return nil
}

// remember keeps the names of the batches that were applied last. Of a batch that changed
// nothing none is kept: at rest nothing is written.
func (t *tx) saveBatchID(b *store.Batch) error {
	var now int64
	if _, err := t.q.totalChanges.first(func(c column) error { now = c.int(0); return nil }); err != nil {
		return err
	}
	t.wrote = now != t.totalChanges
	t.totalChanges = now
	if !t.wrote {
		return nil
	}
	t.totalChanges++
	return t.q.saveApplied.blob(t.recent.encodeWith(b.ID)).int(t.lastJobRow).int(t.tail.lastRow).run()
}

// behind tells who works behind the commits that something was written.
func (s *Store) notifyBackground(b *store.Batch) {
	size := batchBytes(b)
	s.space.writtenSince.Add(size)
	s.checkpointer.wrote(size)
	s.vacuum.wrote()
}

// wrote tells that pages may have become free. It never blocks.
func (v *vacuum) wrote() {
	select {
	case v.work <- struct{}{}:
	default:
	}
}

func (v *vacuum) stop() {
	close(v.quit)
	v.done.Wait()
}

// run looks each second while something is written, and for a window longer, or
// for as long as there is something to give.
func (v *vacuum) run() {
	for {
		select {
		case <-v.quit:
			return
		case <-v.work:
		}
		for quiet := 0; quiet < freeWindow || v.spare() > 0 && !v.failing; quiet++ {
			if !v.wait(time.Second) {
				return
			}
			select {
			case <-v.work:
				quiet = 0
			default:
			}
			v.report(v.runSecond())
		}
	}
}

// second looks, and gives back for about a second what there is to spare.
func (v *vacuum) runSecond() error {
	err := v.sample()
	for began := time.Now(); err == nil && v.spare() > 0 && time.Since(began) < time.Second; {
		if !v.wait(stepEvery) {
			return nil
		}
		err = v.freeStep()
	}
	return err
}

// count looks how many pages are free.
func (v *vacuum) sample() error {
	v.commits.Lock()
	defer v.commits.Unlock()
	if low := v.lowSpace(); low != v.hurry {
		v.hurry = low
		if err := v.limitLog(); err != nil {
			return err
		}
	}
	_, err := v.countFree.first(func(c column) error {
		v.window.add(c.int(0), c.int(1))
		return nil
	})
	return err
}

// boundLog bounds the size that the log keeps: on a disk that is nearly full others
// need the room.
func (v *vacuum) limitLog() error {
	limit := maxLogBytes
	if v.hurry {
		limit = longLogFrames * pageSize
	}
	return sqlitex.ExecuteTransient(v.conn, fmt.Sprintf("PRAGMA journal_size_limit = %d", limit), nil)
}

// rest leaves time to others. It is false when it is time to end.
func (v *vacuum) wait(d time.Duration) bool {
	select {
	case <-v.quit:
		return false
	case <-time.After(d):
		return true
	}
}

// give gives back some pages, unless a commit is under way, and learns how many
// take how long.
func (v *vacuum) freeStep() error {
	if !v.tryCommits() {
		return nil
	}
	defer v.commits.Unlock()
	if !v.trusted() {
		return errUntrusted
	}
	n := min(v.stepPages, v.spare())
	began := time.Now()
	vacuum := fmt.Sprintf("PRAGMA incremental_vacuum(%d)", n)
	err := sqlitex.ExecuteTransient(v.conn, vacuum, nil)
	if diskFull(err) && v.freeLog() {
		err = sqlitex.ExecuteTransient(v.conn, vacuum, nil)
	}
	if err != nil {
		return err
	}
	took := max(time.Since(began), time.Microsecond)
	v.stepPages = min(max(int64(float64(n)*float64(stepTime)/float64(took)), 1), 2*v.stepPages, maxStep)
	v.window.removed(n)
	v.logGrew(int64(n) * pageSize)
	return nil
}

// tell says once that it fails.
func (v *vacuum) report(err error) {
	if err != nil && !v.failing && !errors.Is(err, errUntrusted) {
		v.log.Error("the database cannot give back the pages that it does not need; it is tried again", "error", err)
	}
	v.failing = err != nil
}
