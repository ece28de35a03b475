package sqlite

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"zombiezen.com/go/sqlite"
)

// keeper moves the write-ahead log into the database file, so that commits need
// not. It has a connection and a goroutine of its own; startKeeper starts it,
// stop ends it and waits.
//
// A passive checkpoint copies while commits go on. Only when all of the log has
// been copied does the next commit begin it anew from the front, and under a load
// that never pauses that moment does not come by itself: so once little is left the
// keeper copies the rest while commits wait. A log that is begun anew stays the
// size it has, and writing over it costs less than making it grow.
//
// A read that is under way holds on to the log that it began with. Reads follow each
// other closely, so a log that has grown long is begun anew while commits wait until
// those reads are over, which is soon: none of ours lasts. What lasts is a backup,
// and meanwhile the log grows.
type checkpointer struct {
	// Set once.
	log      *slog.Logger
	conn     *sqlite.Conn
	passive  *query
	restart  *query
	truncate *query
	commits  sync.Locker // what a commit holds
	space    *space      // whose reserve it makes again
	trusted  func() bool // whether the log can be trusted: else it stays as it is

	work  chan struct{} // has a value when something was written
	hurry chan struct{} // has a value when that was much
	quit  chan struct{}
	done  sync.WaitGroup

	written atomic.Int64 // bytes, about, since the last checkpoint began

	// Owned by run.
	restartFrames int64 // frames of log that are not put up with
	failing       bool  // the last checkpoint failed, and that was said
}

const (
	checkpointEvery  = time.Second / 4
	pageSize         = 4096
	minRestartFrames = 4 << 20 / pageSize     // frames of log that are worth beginning it anew
	maxPauseFrames   = 256 << 10 / pageSize   // frames that commits may be made to wait for
	hurryBytes       = 8 << 20                // bytes that are not to wait for the next tick
	longLogFrames    = 16 << 20 / pageSize    // frames for which commits are made to wait for readers
	maxChaseFrames   = 32 << 20 / pageSize    // frames up to which commits go on while it is caught up with
	maxLogBytes      = 64 << 20               // bytes that the log has at most, and keeps
	readerTimeout    = 100 * time.Millisecond // how long they are waited for
)

func startCheckpointer(path string, commits sync.Locker, trusted func() bool, space *space, log *slog.Logger) (*checkpointer, error) {
	conn, err := connect(path, []string{"PRAGMA synchronous = FULL", "PRAGMA wal_autocheckpoint = 0", "PRAGMA cache_size = -512"})
	if err != nil {
		return nil, err
	}
	conn.SetBusyTimeout(readerTimeout)
	k := &checkpointer{log: log, conn: conn, commits: commits, trusted: trusted, space: space, work: make(chan struct{}, 1), hurry: make(chan struct{}, 1), quit: make(chan struct{}), restartFrames: longLogFrames}
	if k.passive, err = prepare(conn, "PRAGMA wal_checkpoint(PASSIVE)"); err == nil {
		k.restart, err = prepare(conn, "PRAGMA wal_checkpoint(RESTART)")
	}
	if err == nil {
		k.truncate, err = prepare(conn, "PRAGMA wal_checkpoint(TRUNCATE)")
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	k.done.Go(k.run)
	return k, nil
}

// wrote tells the keeper that the log has grown, by about so many bytes. It never
// blocks.
func (k *checkpointer) wrote(bytes int64) {
	notify(k.work)
	if k.written.Add(bytes) > hurryBytes {
		notify(k.hurry)
	}
}

// notify wakes whoever reads the channel, now or later; its buffer is one.
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

// run checkpoints at a steady pace for as long as something is written. A
// checkpoint that fails is tried again after the next commit, and each second: room on
// the disk comes back without a word. So is a reserve made that is missing.
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

// later is a second from now while something is to be tried again; else never.
func (k *checkpointer) retryTimer() <-chan time.Time {
	if !k.failing && k.space.missing() == 0 && !k.logTooLong() {
		return nil
	}
	return time.After(time.Second)
}

// outgrown says whether a log is too long for a disk that is nearly full: the one that a
// backup left. No commit may come that would make it shorter, for want of room.
func (k *checkpointer) logTooLong() bool {
	return k.space.logSize() > longLogFrames*pageSize && k.space.low()
}

// cutOff gives the log's room back to the disk, unless a read still holds on to it.
func (k *checkpointer) truncateLog() error {
	k.commits.Lock()
	defer k.commits.Unlock()
	_, err := k.runPragma(k.truncate)
	return err
}

// tell says once that checkpoints fail, and once that they go on.
func (k *checkpointer) report(err error) {
	switch {
	case errors.Is(err, errUntrusted): // whoever noticed has said so
	case err != nil && !k.failing:
		k.log.Error("the log of the database cannot be copied into it, and grows; it is tried again with every commit", "error", err)
	case err == nil && k.failing:
		k.log.Info("the log of the database is copied into it again")
	}
	k.failing = err != nil
}

// checkpoint copies the log, and when it is long catches up with the commits that
// go on meanwhile, until the little that is left can be copied while they wait. Where
// the disk or the machine is too slow for that, they wait for more, before the log has
// outgrown its bound.
func (k *checkpointer) checkpoint() error {
	last, err := k.runPragma(k.passive)
	if err != nil || last.frames < minRestartFrames {
		return err
	}
	for range 8 {
		now, err := k.runPragma(k.passive)
		if err != nil {
			return err
		}
		if now.frames-last.frames < maxPauseFrames || now.frames > maxChaseFrames {
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

// waitForReaders makes the next commit begin the log anew, once the reads under way
// are over. The caller holds up the commits. When a read does not end, as that of a
// backup, the log may grow to twice its size before they are held up again.
func (k *checkpointer) waitForReaders() error {
	l, err := k.runPragma(k.restart)
	k.restartFrames = longLogFrames
	if l.blocked {
		k.restartFrames = 2 * l.frames
	}
	return err
}

// errUnsound is why nothing is copied: what reads as the log may not be it.
var errUntrusted = errors.New("sqlite: the log cannot be trusted")

// copied is what a checkpoint came to.
type checkpointResult struct {
	frames  int64 // in the log
	blocked bool  // a read held on to it, or another checkpoint
}

// copy copies what is in the log when it begins.
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
