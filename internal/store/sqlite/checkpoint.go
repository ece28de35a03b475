package sqlite

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"zombiezen.com/go/sqlite"
)

// checkpointer copies the write-ahead log into the database file, so that commits need not. It
// has its own connection and goroutine; startCheckpointer starts it, and stop ends it and waits.
//
// A passive checkpoint copies while commits go on. SQLite overwrites the log from its start only
// if a commit finds that all of it was copied. Under constant load that never happens by itself,
// so once little is left the checkpointer copies the rest while commits wait. A restarted log
// keeps its size, because overwriting costs less than growing.
//
// A read needs the log of the moment at which it began, so the log cannot restart. Reads overlap,
// so for a long log commits wait until the current reads end. That is soon: our reads are short.
// Only a backup reads for long, and the log grows meanwhile.
type checkpointer struct {
	// Set once.
	log      *slog.Logger
	conn     *sqlite.Conn
	passive  *query
	restart  *query
	truncate *query
	commits  sync.Locker // held by a commit; locking it makes commits wait
	space    *space      // its reserve is refilled here
	trusted  func() bool // whether the log can be trusted; if not, it is not copied

	work  chan struct{} // has a value when something was written
	hurry chan struct{} // has a value when much was written
	quit  chan struct{}
	done  sync.WaitGroup

	written atomic.Int64 // approximate bytes since the last checkpoint began

	// Owned by run.
	restartFrames int64 // length of the log in frames at which commits wait for readers
	failing       bool  // the last checkpoint failed, and that was logged
}

const (
	checkpointEvery  = time.Second / 4
	pageSize         = 4096
	minRestartFrames = 4 << 20 / pageSize     // a shorter log needs no restart
	maxPauseFrames   = 256 << 10 / pageSize   // frames that are copied while commits wait
	hurryBytes       = 8 << 20                // written bytes after which a checkpoint does not wait for the next tick
	longLogFrames    = 16 << 20 / pageSize    // a longer log is restarted even if commits have to wait for readers
	maxCatchUpFrames = 32 << 20 / pageSize    // a longer log is copied while commits wait, however much is left
	maxLogBytes      = 64 << 20               // a longer log is truncated to this size at a restart
	readerTimeout    = 100 * time.Millisecond // how long commits wait for readers
)

func startCheckpointer(path string, commits sync.Locker, trusted func() bool, space *space, log *slog.Logger) (*checkpointer, error) {
	conn, err := connect(path, []string{"PRAGMA synchronous = FULL", "PRAGMA wal_autocheckpoint = 0", "PRAGMA cache_size = -512"})
	if err != nil {
		return nil, err
	}
	conn.SetBusyTimeout(readerTimeout)
	k := &checkpointer{log: log, conn: conn, commits: commits, trusted: trusted, space: space, work: make(chan struct{}, 1), hurry: make(chan struct{}, 1), quit: make(chan struct{}), restartFrames: longLogFrames}
	k.passive = newQuery(conn, "PRAGMA wal_checkpoint(PASSIVE)")
	k.restart = newQuery(conn, "PRAGMA wal_checkpoint(RESTART)")
	k.truncate = newQuery(conn, "PRAGMA wal_checkpoint(TRUNCATE)")
	k.done.Go(k.run)
	return k, nil
}

// noteWrite tells the checkpointer about how many bytes the log has grown. It never blocks.
func (k *checkpointer) noteWrite(bytes int64) {
	notify(k.work)
	if k.written.Add(bytes) > hurryBytes {
		notify(k.hurry)
	}
}

// notify puts a value into a channel with a buffer of one, unless it has one. It never blocks.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (k *checkpointer) stop() {
	close(k.quit)
	k.done.Wait()
	_ = k.conn.Close()
}

// run checkpoints at an interval while something is written. It repeats a failed checkpoint
// after the next commit and each second, because nothing reports that the disk has space again.
// It also refills the reserve.
func (k *checkpointer) run() {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-k.quit:
			return
		case <-k.work:
		case <-k.retryTimer():
		}
		select {
		case <-k.quit:
			return
		case <-tick.C:
		case <-k.hurry:
		}
		k.written.Store(0)
		err := k.checkpoint()
		if err == nil && k.logTooLong() {
			err = k.truncateLog()
		}
		k.report(err)
		k.space.fillReserve()
	}
}

// retryTimer returns a channel that fires in a second if something must be retried; else nil.
func (k *checkpointer) retryTimer() <-chan time.Time {
	if !k.failing && k.space.missingReserve() == 0 && !k.logTooLong() {
		return nil
	}
	return time.After(time.Second)
}

// logTooLong reports whether the log is too long for a nearly full disk. It may have grown during
// a backup, and without free space no commit restarts it.
func (k *checkpointer) logTooLong() bool {
	return k.space.logSize() > longLogFrames*pageSize && k.space.isLow()
}

// truncateLog returns the log's space to the disk, unless a read pins the log.
func (k *checkpointer) truncateLog() error {
	k.commits.Lock()
	defer k.commits.Unlock()
	_, err := k.runPragma(k.truncate)
	return err
}

// report logs once that checkpoints fail, and once that they work again.
func (k *checkpointer) report(err error) {
	switch {
	case errors.Is(err, errUntrusted): // logged where it was found
	case err != nil && !k.failing:
		k.log.Error("the log of the database cannot be copied into it and grows; every commit makes it try again", "error", err)
	case err == nil && k.failing:
		k.log.Info("the log of the database is copied into it again")
	}
	k.failing = err != nil
}

// checkpoint copies the log. If the log is long, it repeats that while commits go on, until so
// little is left that commits can wait for the rest. On a slow disk or machine they wait for
// more, so that the log stays within its limit.
func (k *checkpointer) checkpoint() error {
	last, err := k.runPragma(k.passive)
	if err != nil || last.frames < minRestartFrames {
		return err
	}
	// Each pass copies what was committed during the one before, so the rest shrinks, unless
	// commits are faster than copies.
	for range 8 {
		now, err := k.runPragma(k.passive)
		if err != nil {
			return err
		}
		if now.frames-last.frames < maxPauseFrames || now.frames > maxCatchUpFrames {
			break
		}
		last = now
	}
	k.commits.Lock()
	defer k.commits.Unlock()
	last, err = k.runPragma(k.passive)
	if err != nil || last.frames < longLogFrames {
		k.restartFrames = longLogFrames
		return err
	}
	if last.frames < k.restartFrames {
		return nil
	}
	return k.waitForReaders()
}

// waitForReaders waits for the current reads, so that the next commit restarts the log. The
// caller holds the commits' lock. If a read does not end in time, such as a backup's, the log may
// double before commits wait again.
func (k *checkpointer) waitForReaders() error {
	l, err := k.runPragma(k.restart)
	k.restartFrames = longLogFrames
	if l.blocked {
		k.restartFrames = 2 * l.frames
	}
	return err
}

// errUntrusted reports that nothing is copied, because the log may lack what was written.
var errUntrusted = errors.New("sqlite: the log cannot be trusted")

// checkpointResult is the outcome of a checkpoint.
type checkpointResult struct {
	frames  int64 // in the log
	blocked bool  // a read or another checkpoint prevented a complete copy
}

// runPragma runs one of the checkpoint statements.
func (k *checkpointer) runPragma(how *query) (l checkpointResult, err error) {
	if !k.trusted() {
		return l, errUntrusted
	}
	_, err = how.first(func(c column) error {
		l = checkpointResult{frames: c.int(1), blocked: c.int(0) != 0}
		return nil
	})
	return l, err
}
