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
	log  *slog.Logger
	pace sync.Locker // held during a step; see try
	try  func() bool // takes pace, unless a commit has it
	conn *sqlite.Conn
	look *query
	told func(bytes int64) // that the log has grown
	low  func() bool       // whether the disk is nearly full
	room func() bool       // makes room in the log, if need be by what is held in reserve

	sound func() bool // whether the file can be trusted: else it stays as it is

	work chan struct{}
	quit chan struct{}
	done sync.WaitGroup

	// Owned by run.
	window  window
	hurry   bool  // the disk was nearly full at the last look
	step    int64 // pages of the next step
	failing bool  // the last step failed, and that was said
}

const (
	freeWindow  = 30                    // seconds, one look in each
	freeReserve = 16 << 20 / pageSize   // pages that are kept in any case
	stepEvery   = 50 * time.Millisecond // between two steps
	stepTime    = 2 * time.Millisecond  // what a step should take
	firstStep   = 16                    // pages
	mostStep    = 256
)

// window is how many pages were free at the last looks.
type window struct {
	looks []int64
	pages int64 // of the whole file, at the last look
}

// add adds a look.
func (w *window) add(free, pages int64) {
	w.looks, w.pages = append(w.looks, free), pages
	if len(w.looks) > freeWindow {
		w.looks = w.looks[1:]
	}
}

// spare is how many pages nothing needed during the window, beyond the reserve: a
// tenth of the file, and no less than a fixed size.
func (w *window) spare() int64 {
	if len(w.looks) < freeWindow {
		return 0
	}
	least := w.looks[0]
	for _, free := range w.looks {
		least = min(least, free)
	}
	return max(least-max(freeReserve, w.pages/10), 0)
}

// free is how many pages were free at the last look.
func (w *window) free() int64 {
	if len(w.looks) == 0 {
		return 0
	}
	return max(w.looks[len(w.looks)-1], 0)
}

// spare is how many pages are to be given back.
func (v *vacuum) spare() int64 {
	if v.hurry {
		return v.window.free()
	}
	return v.window.spare()
}

// gave notes that pages were given back: that they are gone says nothing of need.
func (w *window) gave(n int64) {
	for i := range w.looks {
		w.looks[i] -= n
	}
	w.pages -= n
}

func (s *Store) startVacuum(log *slog.Logger) error {
	look, err := prepare(s.conn, "SELECT freelist_count, page_count FROM pragma_freelist_count(), pragma_page_count()")
	if err != nil {
		return err
	}
	s.vacuum = &vacuum{
		log: log, pace: &s.mu, try: s.mu.TryLock, conn: s.conn, look: look, told: s.keeper.wrote, sound: s.sound,
		low: s.space.low, room: func() bool { return s.restartLog() || s.space.give() && s.restartLog() },
		work: make(chan struct{}, 1), quit: make(chan struct{}), step: firstStep,
	}
	s.vacuum.done.Go(s.vacuum.run)
	return nil
}

// remember keeps the names of the batches that were applied last. Of a batch that changed
// nothing none is kept: at rest nothing is written.
func (t *tx) remember(b *store.Batch) error {
	var now int64
	if _, err := t.q.changes.first(func(c column) error { now = c.int(0); return nil }); err != nil {
		return err
	}
	t.wrote = now != t.changes
	t.changes = now
	if !t.wrote {
		return nil
	}
	t.changes++
	return t.q.setBatch.blob(t.recent.with(b.ID)).int(t.lastJob).int(t.tail.last).run()
}

// behind tells who works behind the commits that something was written.
func (s *Store) behind(b *store.Batch) {
	size := weight(b)
	s.space.grown.Add(size)
	s.keeper.wrote(size)
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
			if !v.rest(time.Second) {
				return
			}
			select {
			case <-v.work:
				quiet = 0
			default:
			}
			v.tell(v.second())
		}
	}
}

// second looks, and gives back for about a second what there is to spare.
func (v *vacuum) second() error {
	err := v.count()
	for began := time.Now(); err == nil && v.spare() > 0 && time.Since(began) < time.Second; {
		if !v.rest(stepEvery) {
			return nil
		}
		err = v.give()
	}
	return err
}

// count looks how many pages are free.
func (v *vacuum) count() error {
	v.pace.Lock()
	defer v.pace.Unlock()
	if low := v.low(); low != v.hurry {
		v.hurry = low
		if err := v.boundLog(); err != nil {
			return err
		}
	}
	_, err := v.look.first(func(c column) error {
		v.window.add(c.int(0), c.int(1))
		return nil
	})
	return err
}

// boundLog bounds the size that the log keeps: on a disk that is nearly full others
// need the room.
func (v *vacuum) boundLog() error {
	most := mostLog
	if v.hurry {
		most = longLog * pageSize
	}
	return sqlitex.ExecuteTransient(v.conn, fmt.Sprintf("PRAGMA journal_size_limit = %d", most), nil)
}

// rest leaves time to others. It is false when it is time to end.
func (v *vacuum) rest(d time.Duration) bool {
	select {
	case <-v.quit:
		return false
	case <-time.After(d):
		return true
	}
}

// give gives back some pages, unless a commit is under way, and learns how many
// take how long.
func (v *vacuum) give() error {
	if !v.try() {
		return nil
	}
	defer v.pace.Unlock()
	if !v.sound() {
		return errUnsound
	}
	n := min(v.step, v.spare())
	began := time.Now()
	vacuum := fmt.Sprintf("PRAGMA incremental_vacuum(%d)", n)
	err := sqlitex.ExecuteTransient(v.conn, vacuum, nil)
	if noRoom(err) && v.room() {
		err = sqlitex.ExecuteTransient(v.conn, vacuum, nil)
	}
	if err != nil {
		return err
	}
	took := max(time.Since(began), time.Microsecond)
	v.step = min(max(int64(float64(n)*float64(stepTime)/float64(took)), 1), 2*v.step, mostStep)
	v.window.gave(n)
	v.told(int64(n) * pageSize)
	return nil
}

// tell says once that it fails.
func (v *vacuum) tell(err error) {
	if err != nil && !v.failing && !errors.Is(err, errUnsound) {
		v.log.Error("the database cannot give back the pages that it does not need; it is tried again", "error", err)
	}
	v.failing = err != nil
}
