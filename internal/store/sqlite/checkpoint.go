package sqlite

import (
	"errors"
	"sync"
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
type keeper struct {
	conn  *sqlite.Conn
	pass  *query
	pause sync.Locker // what a commit holds
	sound func() bool // whether the log can be trusted: else it stays as it is
	work  chan struct{}
	quit  chan struct{}
	done  sync.WaitGroup
}

const (
	checkpointEvery = time.Second / 4
	pageSize        = 4096
	beginAnew       = 4 << 20 / pageSize   // frames of log that are worth beginning it anew
	quicklyCopied   = 256 << 10 / pageSize // frames that commits may be made to wait for
)

func startKeeper(path string, pause sync.Locker, sound func() bool) (*keeper, error) {
	conn, err := connect(path, []string{"PRAGMA synchronous = FULL", "PRAGMA wal_autocheckpoint = 0", "PRAGMA cache_size = -512"})
	if err != nil {
		return nil, err
	}
	k := &keeper{conn: conn, pause: pause, sound: sound, work: make(chan struct{}, 1), quit: make(chan struct{})}
	if k.pass, err = prepare(conn, "PRAGMA wal_checkpoint(PASSIVE)"); err != nil {
		_ = conn.Close()
		return nil, err
	}
	k.done.Go(k.run)
	return k, nil
}

// wrote tells the keeper that the log has grown. It never blocks.
func (k *keeper) wrote() {
	select {
	case k.work <- struct{}{}:
	default:
	}
}

func (k *keeper) stop() {
	close(k.quit)
	k.done.Wait()
	_ = k.conn.Close()
}

// run checkpoints at a steady pace for as long as something is written. A
// checkpoint that fails is tried again after the next commit.
func (k *keeper) run() {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-k.quit:
			return
		case <-k.work:
		}
		select {
		case <-k.quit:
			return
		case <-tick.C:
		}
		k.checkpoint()
	}
}

// checkpoint copies the log, and when it is long catches up with the commits that
// go on meanwhile, until the little that is left can be copied while they wait.
func (k *keeper) checkpoint() {
	last, err := k.passive()
	if err != nil || last < beginAnew {
		return
	}
	for range 8 {
		now, err := k.passive()
		if err != nil {
			return
		}
		if now-last < quicklyCopied {
			break
		}
		last = now
	}
	k.pause.Lock()
	defer k.pause.Unlock()
	_, _ = k.passive()
}

// errUnsound is why nothing is copied: what reads as the log may not be it.
var errUnsound = errors.New("sqlite: the log cannot be trusted")

// passive copies what was in the log when it began, without making anyone wait,
// and says how many frames that were.
func (k *keeper) passive() (frames int64, err error) {
	if !k.sound() {
		return 0, errUnsound
	}
	_, err = k.pass.first(func(c column) error {
		frames = c.int(1)
		return nil
	})
	return frames, err
}
