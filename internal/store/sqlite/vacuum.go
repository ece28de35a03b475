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

// vacuum returns unused pages to the file system, so that a database shrinks after a day with
// much data. It has its own goroutine; startVacuum starts it, and stop ends it and waits.
//
// Pages that will soon be used again are not worth returning. Only pages that were free during a
// whole window of time count, and a part of them is kept. On a nearly full disk all free
// pages are returned at once, because that is how a delete frees space. A step takes about two
// milliseconds and never delays a commit that is under way. An idle store with nothing to return
// does nothing.
type vacuum struct {
	// Set once.
	log          *slog.Logger
	commits      sync.Locker // held by a commit, and during a step
	tryCommits   func() bool // locks commits unless a commit runs
	conn         *sqlite.Conn
	countFree    *query
	noteLogWrite func(bytes int64) // tells the checkpointer
	lowSpace     func() bool       // reports whether the disk is nearly full
	freeLog      func() bool       // frees space in the log, from the reserve if needed

	trusted func() bool // whether the file can be trusted; if not, nothing is written

	work chan struct{}
	quit chan struct{}
	done sync.WaitGroup

	// Owned by run.
	window    window
	hurry     bool  // the disk was nearly full at the last sample
	stepPages int64 // pages of the next step
	failing   bool  // the last step failed, and that was logged
}

const (
	freeWindow  = 30                    // seconds, with one sample each
	freeReserve = 16 << 20 / pageSize   // pages that always stay
	stepEvery   = 50 * time.Millisecond // between two steps
	stepTime    = 2 * time.Millisecond  // target duration of a step
	firstStep   = 16                    // pages
	maxStep     = 256
)

// window has the number of free pages at the last samples.
type window struct {
	samples []int64
	pages   int64 // size of the file at the last sample
}

// add adds a sample.
func (w *window) add(free, pages int64) {
	w.samples, w.pages = append(w.samples, free), pages
	if len(w.samples) > freeWindow {
		w.samples = w.samples[1:]
	}
}

// spare returns how many pages were free during the whole window, beyond those that stay: a
// tenth of the file, but at least freeReserve.
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

// free returns how many pages were free at the last sample.
func (w *window) free() int64 {
	if len(w.samples) == 0 {
		return 0
	}
	return max(w.samples[len(w.samples)-1], 0)
}

// spare returns how many pages to return.
func (v *vacuum) spare() int64 {
	if v.hurry {
		return v.window.free()
	}
	return v.window.spare()
}

// subtract removes returned pages from the samples: they left the file without being used.
func (w *window) subtract(n int64) {
	for i := range w.samples {
		w.samples[i] -= n
	}
	w.pages -= n
}

func (s *Store) startVacuum(log *slog.Logger) {
	countFree := newQuery(s.conn, "SELECT freelist_count, page_count FROM pragma_freelist_count(), pragma_page_count()")
	s.vacuum = &vacuum{
		log: log, commits: &s.mu, tryCommits: s.mu.TryLock, conn: s.conn, countFree: countFree, noteLogWrite: s.checkpointer.noteWrite, trusted: s.trusted,
		lowSpace: s.space.isLow, freeLog: func() bool { return s.restartLog() || s.space.shrinkReserve() && s.restartLog() },
		work: make(chan struct{}, 1), quit: make(chan struct{}), stepPages: firstStep,
	}
	s.vacuum.done.Go(s.vacuum.run)
}

// saveBatchID stores the ids of the last batches with the last row numbers. A batch that changed
// nothing stores none, so that an idle store writes nothing.
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

// notifyBackground tells the checkpointer and the vacuum that a batch was written.
func (s *Store) notifyBackground(b *store.Batch) {
	size := batchBytes(b)
	s.space.writtenSince.Add(size)
	s.checkpointer.noteWrite(size)
	s.vacuum.noteWrite()
}

// noteWrite tells the vacuum that pages may have become free. It never blocks.
func (v *vacuum) noteWrite() {
	select {
	case v.work <- struct{}{}:
	default:
	}
}

func (v *vacuum) stop() {
	close(v.quit)
	v.done.Wait()
}

// run samples each second while something is written, and for a window after that, or while
// there is something to return.
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

// runSecond samples, and returns spare pages for about a second.
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

// sample counts the free pages.
func (v *vacuum) sample() error {
	v.commits.Lock()
	defer v.commits.Unlock()
	// On a nearly full disk the log must give up space too.
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

// limitLog sets the size that the log keeps at a restart: smaller on a nearly full disk.
func (v *vacuum) limitLog() error {
	limit := maxLogBytes
	if v.hurry {
		limit = longLogFrames * pageSize
	}
	return sqlitex.ExecuteTransient(v.conn, fmt.Sprintf("PRAGMA journal_size_limit = %d", limit), nil)
}

// wait waits for d. It returns false if the vacuum must stop.
func (v *vacuum) wait(d time.Duration) bool {
	select {
	case <-v.quit:
		return false
	case <-time.After(d):
		return true
	}
}

// freeStep returns some pages, unless a commit is under way, and adapts the size of the next
// step to how long this one took.
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
	// Returning pages writes to the log, which a full disk has no space for.
	if diskFull(err) && v.freeLog() {
		err = sqlitex.ExecuteTransient(v.conn, vacuum, nil)
	}
	if err != nil {
		return err
	}
	took := max(time.Since(began), time.Microsecond)
	// At most double it: one step that was fast by chance must not cause a long one.
	v.stepPages = min(max(int64(float64(n)*float64(stepTime)/float64(took)), 1), 2*v.stepPages, maxStep)
	v.window.subtract(n)
	v.noteLogWrite(int64(n) * pageSize)
	return nil
}

// report logs once that it fails.
func (v *vacuum) report(err error) {
	if err != nil && !v.failing && !errors.Is(err, errUntrusted) {
		v.log.Error("the database cannot return unused pages to the disk; it will try again", "error", err)
	}
	v.failing = err != nil
}
