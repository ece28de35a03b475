package files

import (
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Limits are the limits of an [Intake].
type Limits struct {
	MaxFile   int64 // bytes of a file; 0 for 512 MiB
	MaxStaged int64 // bytes of all files whose jobs are not stored yet; 0 for 16 times MaxFile
	ChunkSize int   // bytes that [Target.Write] gets at once
}

const (
	defaultMaxFile = 512 << 20
	stagedFiles    = 16
	filesPerJob    = 2 // the files of one job together may be this many times MaxFile
)

// Intake makes the stages of a [Store] and holds them to its limits. Any goroutine may call its
// methods.
type Intake struct {
	// Set once.
	limits Limits
	// hasRoom reports whether so many bytes may be written; nil where that is unknown.
	hasRoom func(bytes int64) bool

	mu sync.Mutex
	// Guarded by mu.
	staged  int64 // bytes of the files whose jobs are not stored yet
	writing int64 // the part of staged that was reserved and is not written yet
}

// NewIntake returns an Intake with no stage.
func NewIntake(l Limits) *Intake {
	if l.MaxFile == 0 {
		l.MaxFile = defaultMaxFile
	}
	if l.MaxStaged == 0 {
		l.MaxStaged = stagedFiles * l.MaxFile
	}
	return &Intake{limits: l}
}

// MaxFile implements [Store].
func (i *Intake) MaxFile() int64 { return i.limits.MaxFile }

// MaxJob implements [Store]: twice MaxFile.
func (i *Intake) MaxJob() int64 { return filesPerJob * i.limits.MaxFile }

// NewStage returns a stage that writes the files of a job to a target.
func (i *Intake) NewStage(id job.ID, to Target) *Stage {
	return &Stage{intake: i, id: id, target: to}
}

// reserve counts bytes that will be written for a job that is not stored yet. It asks for the
// free bytes of the disk each time, which costs little compared with the write of a chunk.
// Bytes that other uploads have reserved count too, so that parallel uploads together leave
// the bytes that are to stay free.
func (i *Intake) reserve(n int64) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.staged+n > i.limits.MaxStaged {
		return &job.Error{Code: job.Overloaded, Message: "too many files are being received at the moment: try again in a moment", RetryAfter: 5 * time.Second}
	}
	if i.hasRoom != nil && !i.hasRoom(i.writing+n) {
		return noSpace(nil)
	}
	i.staged += n
	i.writing += n
	return nil
}

// unreserve ends a reservation: the bytes are on the disk, or will not be written.
func (i *Intake) unreserve(n int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.writing -= n
}

// release ends the count of a stage's bytes.
func (i *Intake) release(n int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.staged -= n
}
