package engine

import (
	"log/slog"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	// measureInterval is how often the free space is measured while submits arrive.
	// remeasureInterval is the minimum time between two measurements that are made before a
	// refusal.
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
	// writesPerByte is how often the store writes a byte: to its log and to its database.
	writesPerByte = 2
)

// disk decides whether there is space for new work. It reserves some space, so that finishes and
// deletes can still be written; deletes free space. It measures the free space at intervals, and
// subtracts the bytes admitted since.
type disk struct {
	// Set once.
	free    func() (int64, error) // nil if it cannot be measured
	minFree int64                 // reserved bytes
	largest int64                 // bytes of the largest submit
	log     *slog.Logger

	mu sync.Mutex
	// Guarded by mu.
	measuredAt       time.Time // when the free space was last measured
	freeBytes        int64     // the free space at that time
	measureFailed    bool      // the last measurement failed
	admittedBytes    int64     // bytes of admitted submits that are not answered yet
	commitOtherBytes int64     // bytes of the current commit, without its submits
	commitBytes      int64     // bytes of the current commit
	writtenBytes     int64     // bytes of the commits since the last measurement
	fullAt           time.Time // when a commit last failed because the disk was full
	reported         bool      // the log has the message about the full disk
}

// admit reserves bytes for a submit until release is called, or refuses it with [job.NoSpace]
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

// release frees the bytes that admit reserved.
func (d *disk) release(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.admittedBytes -= bytes
}

// beginCommit counts the bytes that the next commit adds. submits is the part that admit has
// counted already. It returns false if the bytes do not fit.
func (d *disk) beginCommit(bytes, submits int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes > 0 && !d.fitsLocked(bytes, 0) {
		return false
	}
	d.commitBytes, d.commitOtherBytes = bytes, bytes-submits
	return true
}

// endCommit adds the bytes of the commit to the written ones.
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

// fitsLocked reports whether so many bytes can be written with at least minFree left over. It
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

// measureLocked measures the free space. If that fails, nothing is refused, because the store
// reports a full disk itself.
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
	case !refused && d.reported && d.hasBytesLocked(d.admittedBytes+d.largest, d.minFree):
		// Not as soon as one small submit fits: the message would be logged again and again.
		d.log.Info("the disk has space again")
		d.reported = false
	}
}

// setFull records that a commit failed because the disk is full.
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
	return time.Since(d.fullAt) >= measureInterval && d.fitsLocked(d.admittedBytes+d.largest, d.minFree)
}

func noSpace(cause error) error {
	return &job.Error{Code: job.NoSpace, Message: "the server's disk is full", RetryAfter: fullDiskRetryAfter, Err: cause}
}

// addedBytes returns how many bytes a batch adds to the disk. Ops that only end work or renew
// leases count as 0. A result counts, because it adds bytes. submits is the part that was
// admitted as new work.
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
