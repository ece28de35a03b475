package engine

import (
	"log/slog"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	// lookEvery is how often the disk is asked for its room while submits come, and
	// lookAgain how soon it is asked again before something is refused.
	measureInterval   = time.Second
	remeasureInterval = 10 * time.Millisecond
	// fullPause is how long a full disk is left alone before it is tried again.
	fullDiskPause = 100 * time.Millisecond
	// fullWait is how long a cancel or a delete waits for room before it is refused.
	fullDiskWait = 5 * time.Second
	// fullRetry is when a client may try again that was refused for want of room.
	fullDiskRetryAfter = 30 * time.Second
	// smallEnd is how large an end may be that is tried on a full disk although it may
	// not fit.
	smallFinish = 64 << 10
	// lastWords is how many bytes a full disk takes of what an attempt says.
	maxFullDiskOutput = 16 << 10
	// twice is how often a byte is written: to the log of the store and to its place.
	writesPerByte = 2
)

// disk knows whether there is room for new work. Some is always kept back, so that
// what ends work, and so makes room, can still be written. The disk is looked at now
// and then; what was let in since is counted.
type disk struct {
	// Set once.
	free    func() (int64, error) // nil when it cannot be asked
	minFree int64                 // bytes that are kept back
	log     *slog.Logger

	mu sync.Mutex
	// Guarded by mu.
	measuredAt       time.Time // when it was last asked for its room
	freeBytes        int64     // the room that it had then
	measureFailed    bool      // the last look failed
	admittedBytes    int64     // bytes of submits that were let in and are not answered yet
	commitOtherBytes int64     // bytes of the commit under way, without its submits
	commitBytes      int64     // bytes of the commit under way
	writtenBytes     int64     // bytes of the commits since the last look
	fullAt           time.Time // when a commit last met it full
	reported         bool      // that there is no room
}

// room says whether there is room on the disk for new work: [job.NoSpace] when there
// is not.
func (d *disk) checkSpace() error { return d.admit(0) }

// admit counts a submit of so many bytes in, until answered counts it out, or says that
// there is no room for it.
func (d *disk) admit(bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	refused := !d.fitsLocked(d.admittedBytes+bytes, d.minFree) || time.Since(d.fullAt) < measureInterval
	d.reportLocked(refused, nil)
	if refused {
		return noSpace(nil)
	}
	d.admittedBytes += bytes
	return nil
}

// answered counts submits out again.
func (d *disk) release(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.admittedBytes -= bytes
}

// begin counts a commit in that adds so many bytes, some of them those of submits, and
// says whether they fit; end counts it among those that were written.
func (d *disk) beginCommit(bytes, submits int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes > 0 && !d.fitsLocked(bytes, 0) {
		return false
	}
	d.commitBytes, d.commitOtherBytes = bytes, bytes-submits
	return true
}

func (d *disk) endCommit() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writtenBytes += d.commitBytes
	d.commitBytes, d.commitOtherBytes = 0, 0
}

// fits says whether so many bytes may be written.
func (d *disk) fits(bytes int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fitsLocked(bytes, 0)
}

// fitsLocked says whether so many bytes may be written and some still be left. It looks
// at the disk when the last look was long ago, and before it says no.
func (d *disk) fitsLocked(bytes, least int64) bool {
	if d.free == nil {
		return true
	}
	ago := time.Since(d.measuredAt)
	if ago >= measureInterval {
		d.measureLocked()
	}
	if !d.hasBytesLocked(bytes, least) && ago >= remeasureInterval {
		d.measureLocked()
	}
	return d.hasBytesLocked(bytes, least)
}

func (d *disk) hasBytesLocked(bytes, least int64) bool {
	return d.measureFailed || d.freeBytes-writesPerByte*(d.writtenBytes+d.commitOtherBytes+bytes) >= least
}

// lookLocked asks for the room there is. Where that fails nothing is refused: the
// store will say.
func (d *disk) measureLocked() {
	left, err := d.free()
	if err != nil {
		d.log.Error("the room on the disk cannot be found out", "error", err)
	}
	d.measuredAt, d.freeBytes, d.measureFailed, d.writtenBytes = time.Now(), left, err != nil, 0
}

// sayLocked says once that there is no room, and once that there is again.
func (d *disk) reportLocked(refused bool, cause error) {
	switch {
	case refused && !d.reported:
		d.log.Error("the disk is full: no new work is taken until there is room", "kept_back", d.minFree, "room", d.freeBytes, "error", cause)
		d.reported = true
	case !refused && d.reported && d.hasBytesLocked(d.admittedBytes+job.MaxBody, d.minFree): // not for a small one that just fits
		d.log.Info("there is room on the disk again")
		d.reported = false
	}
}

// met notes that a commit met the disk full.
func (d *disk) setFull(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fullAt = time.Now()
	d.reportLocked(true, cause)
}

// HasDiskSpace says whether there is room on the disk for any new work: for the largest body.
func (e *Engine) HasDiskSpace() bool { return e.disk.hasSpace() }

func (d *disk) hasSpace() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.fullAt) >= measureInterval && d.fitsLocked(d.admittedBytes+job.MaxBody, d.minFree)
}

func noSpace(cause error) error {
	return &job.Error{Code: job.NoSpace, Message: "the server's disk is full", RetryAfter: fullDiskRetryAfter, Err: cause}
}

// adds is how many bytes a batch adds to the disk: 0 when it only ends work, or keeps
// it alive. A result is both, and counts. Submits is the part that was let in as new
// work.
func (w *pendingBatch) addedBytes() (bytes, submits int64) {
	for _, p := range w.ops {
		if p.submits != nil {
			submits += int64(p.bytes)
			continue
		}
		switch p.op.(type) {
		case *store.Renew, *store.Cancel, *store.Delete, *store.Prune:
		case *store.Finish:
			bytes += int64(p.bytes - opBytes)
		default:
			bytes += int64(p.bytes)
		}
	}
	return bytes + submits + int64(len(w.claims))*opBytes, submits
}
