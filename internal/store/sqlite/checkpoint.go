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
type keeper struct {
	// Set once.
	log     *slog.Logger
	conn    *sqlite.Conn
	pass    *query
	restart *query
	cut     *query
	pause   sync.Locker // what a commit holds
	space   *space      // whose reserve it makes again
	sound   func() bool // whether the log can be trusted: else it stays as it is

	work chan struct{} // has a value when something was written
	soon chan struct{} // has a value when that was much
	quit chan struct{}
	done sync.WaitGroup

	written atomic.Int64 // bytes, about, since the last checkpoint began

	// Owned by run.
	tooLong int64 // frames of log that are not put up with
	failing bool  // the last checkpoint failed, and that was said
}

const (
	checkpointEvery = time.Second / 4
	pageSize        = 4096
	beginAnew       = 4 << 20 / pageSize     // frames of log that are worth beginning it anew
	quicklyCopied   = 256 << 10 / pageSize   // frames that commits may be made to wait for
	muchWritten     = 8 << 20                // bytes that are not to wait for the next tick
	longLog         = 16 << 20 / pageSize    // frames for which commits are made to wait for readers
	mostChased      = 32 << 20 / pageSize    // frames up to which commits go on while it is caught up with
	mostLog         = 64 << 20               // bytes that the log has at most, and keeps
	readersEnd      = 100 * time.Millisecond // how long they are waited for
)

func startKeeper(path string, pause sync.Locker, sound func() bool, space *space, log *slog.Logger) (*keeper, error) {
	conn, err := connect(path, []string{"PRAGMA synchronous = FULL", "PRAGMA wal_autocheckpoint = 0", "PRAGMA cache_size = -512"})
	if err != nil {
		return nil, err
	}
	conn.SetBusyTimeout(readersEnd)
	k := &keeper{log: log, conn: conn, pause: pause, sound: sound, space: space, work: make(chan struct{}, 1), soon: make(chan struct{}, 1), quit: make(chan struct{}), tooLong: longLog}
	if k.pass, err = prepare(conn, "PRAGMA wal_checkpoint(PASSIVE)"); err == nil {
		k.restart, err = prepare(conn, "PRAGMA wal_checkpoint(RESTART)")
	}
	if err == nil {
		k.cut, err = prepare(conn, "PRAGMA wal_checkpoint(TRUNCATE)")
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
func (k *keeper) wrote(bytes int64) {
	notify(k.work)
	if k.written.Add(bytes) > muchWritten {
		notify(k.soon)
	}
}

// notify wakes whoever reads the channel, now or later; its buffer is one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (k *keeper) stop() {
	close(k.quit)
	k.done.Wait()
	_ = k.conn.Close()
}

// run checkpoints at a steady pace for as long as something is written. A
// checkpoint that fails is tried again after the next commit, and each second: room on
// the disk comes back without a word. So is a reserve made that is missing.
func (k *keeper) run() {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-k.quit:
			return
		case <-k.work:
		case <-k.later():
		}
		select {
		case <-k.quit:
			return
		case <-tick.C:
		case <-k.soon:
		}
		k.written.Store(0)
		err := k.checkpoint()
		if err == nil && k.outgrown() {
			err = k.cutOff()
		}
		k.tell(err)
		k.space.take()
	}
}

// later is a second from now while something is to be tried again; else never.
func (k *keeper) later() <-chan time.Time {
	if !k.failing && k.space.missing() == 0 && !k.outgrown() {
		return nil
	}
	return time.After(time.Second)
}

// outgrown says whether a log is too long for a disk that is nearly full: the one that a
// backup left. No commit may come that would make it shorter, for want of room.
func (k *keeper) outgrown() bool {
	return k.space.logSize() > longLog*pageSize && k.space.low()
}

// cutOff gives the log's room back to the disk, unless a read still holds on to it.
func (k *keeper) cutOff() error {
	k.pause.Lock()
	defer k.pause.Unlock()
	_, err := k.copy(k.cut)
	return err
}

// tell says once that checkpoints fail, and once that they go on.
func (k *keeper) tell(err error) {
	switch {
	case errors.Is(err, errUnsound): // whoever noticed has said so
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
func (k *keeper) checkpoint() error {
	last, err := k.copy(k.pass)
	if err != nil || last.frames < beginAnew {
		return err
	}
	for range 8 {
		now, err := k.copy(k.pass)
		if err != nil {
			return err
		}
		if now.frames-last.frames < quicklyCopied || now.frames > mostChased {
			break
		}
		last = now
	}
	k.pause.Lock()
	defer k.pause.Unlock()
	last, err = k.copy(k.pass)
	if err != nil || last.frames < longLog {
		k.tooLong = longLog
		return err
	}
	if last.frames < k.tooLong {
		return nil
	}
	return k.waitForReaders()
}

// waitForReaders makes the next commit begin the log anew, once the reads under way
// are over. The caller holds up the commits. When a read does not end, as that of a
// backup, the log may grow to twice its size before they are held up again.
func (k *keeper) waitForReaders() error {
	l, err := k.copy(k.restart)
	k.tooLong = longLog
	if l.held {
		k.tooLong = 2 * l.frames
	}
	return err
}

// errUnsound is why nothing is copied: what reads as the log may not be it.
var errUnsound = errors.New("sqlite: the log cannot be trusted")

// copied is what a checkpoint came to.
type copied struct {
	frames int64 // in the log
	held   bool  // a read held on to it, or another checkpoint
}

// copy copies what is in the log when it begins.
func (k *keeper) copy(how *query) (l copied, err error) {
	if !k.sound() {
		return l, errUnsound
	}
	_, err = how.first(func(c column) error {
		l = copied{frames: c.int(1), held: c.int(0) != 0}
		return nil
	})
	return l, err
}
