package engine

import (
	"log/slog"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	// measureInterval is how often the free space is measured while submits come.
	// remeasureInterval is the minimum time between two measurements before a refusal.
	measureInterval   = time.Second
	remeasureInterval = 10 * time.Millisecond
	// fullDiskPause is the pause between two tries on a full disk.
	fullDiskPause = 100 * time.Millisecond
	// fullDiskWait is how long a cancel or a delete waits for space before it is refused.
	fullDiskWait = 5 * time.Second
	// fullDiskRetryAfter is the Retry-After of refusals for lack of space.
	fullDiskRetryAfter = 30 * time.Second
	// smallFinish is the size in bytes up to which a finish is tried on a full disk even if
	// it may not fit.
	smallFinish = 64 << 10
	// maxFullDiskOutput bounds the output of one attempt that is tried on a full disk.
	maxFullDiskOutput = 16 << 10
	// writesPerByte is how often a byte is written: to the store's log and to its place.
	writesPerByte = 2
)

// disk decides whether there is space for new work. It reserves some, so that finishes and
// deletes, which free space, can still be written. It measures the free space now and then, and
// counts what was admitted since.
type disk struct {
	// Set once.
	free    func() (int64, error) // nil if it cannot be measured
	minFree int64                 // reserved bytes
	log     *slog.Logger

	mu sync.Mutex
	// Guarded by mu.
	measuredAt       time.Time // when the free space was last measured
	freeBytes        int64     // the free space then
	measureFailed    bool      // the last measurement failed
	admittedBytes    int64     // bytes of submits that are admitted and not answered yet
	commitOtherBytes int64     // bytes of the commit under way, without its submits
	commitBytes      int64     // bytes of the commit under way
	writtenBytes     int64     // bytes of the commits since the last measurement
	fullAt           time.Time // when a commit last found it full
	reported         bool      // the log has the message that the disk is full
}

// admit counts a submit in until release counts it out, or refuses it with [job.NoSpace]
// because it does not fit.
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

// release counts submits out.
func (d *disk) release(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.admittedBytes -= bytes
}

// beginCommit counts in a commit that adds so many bytes, of which submits are counted by admit
// already. It returns false if they do not fit.
func (d *disk) beginCommit(bytes, submits int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes > 0 && !d.fitsLocked(bytes, 0) {
		return false
	}
	d.commitBytes, d.commitOtherBytes = bytes, bytes-submits
	return true
}

// endCommit counts the commit among the written ones.
func (d *disk) endCommit() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writtenBytes += d.commitBytes
	d.commitBytes, d.commitOtherBytes = 0, 0
}

// fits reports whether so many bytes may be written.
func (d *disk) fits(bytes int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fitsLocked(bytes, 0)
}

// fitsLocked reports whether so many bytes may be written and at least minFree still be left. It
// measures the disk if the last measurement is old, and before it returns false.
func (d *disk) fitsLocked(bytes, minFree int64) bool {
	if d.free == nil {
		return true
	}
	ago := time.Since(d.measuredAt)
	if ago >= measureInterval {
		d.measureLocked()
	}
	if !d.hasBytesLocked(bytes, minFree) && ago >= remeasureInterval {
		d.measureLocked()
	}
	return d.hasBytesLocked(bytes, minFree)
}

func (d *disk) hasBytesLocked(bytes, minFree int64) bool {
	return d.measureFailed || d.freeBytes-writesPerByte*(d.writtenBytes+d.commitOtherBytes+bytes) >= minFree
}

// measureLocked measures the free space. If that fails nothing is refused: the store will report
// a full disk.
func (d *disk) measureLocked() {
	left, err := d.free()
	if err != nil {
		d.log.Error("the free space on the disk cannot be measured", "error", err)
	}
	d.measuredAt, d.freeBytes, d.measureFailed, d.writtenBytes = time.Now(), left, err != nil, 0
}

// reportLocked logs once that the disk is full, and once that it has space again.
func (d *disk) reportLocked(refused bool, cause error) {
	switch {
	case refused && !d.reported:
		d.log.Error("the disk is full: new work is refused until there is space", "reserved", d.minFree, "free", d.freeBytes, "error", cause)
		d.reported = true
	case !refused && d.reported && d.hasBytesLocked(d.admittedBytes+job.MaxBody, d.minFree):
		// Not as soon as one small submit fits.
		d.log.Info("the disk has space again")
		d.reported = false
	}
}

// setFull notes that a commit found the disk full.
func (d *disk) setFull(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fullAt = time.Now()
	d.reportLocked(true, cause)
}

// HasDiskSpace reports whether the disk has space for any new work, even for the largest body.
func (e *Engine) HasDiskSpace() bool {
	d := e.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.fullAt) >= measureInterval && d.fitsLocked(d.admittedBytes+job.MaxBody, d.minFree)
}

func noSpace(cause error) error {
	return &job.Error{Code: job.NoSpace, Message: "the server's disk is full", RetryAfter: fullDiskRetryAfter, Err: cause}
}

// addedBytes returns how many bytes a batch adds to the disk; 0 if it only ends work or keeps it
// alive. A result ends work and adds bytes, so it counts. submits is the part that was admitted
// as new work.
func (pb *pendingBatch) addedBytes() (bytes, submits int64) {
	for _, p := range pb.ops {
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
	return bytes + submits + int64(len(pb.claims))*opBytes, submits
}
