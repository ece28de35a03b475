// Package files keeps the files that come with jobs. Those of a job lie in a
// directory of its own, under the names that the job tells,
//
//	<root>/<job id>/<file name>
//
// and nothing else lies there: a copy of the store and of the root is a copy of
// everything.
//
// The life of a file: it is received into the directory of a job that does not
// exist yet ([Dir.Stage]), and synced; then the job is stored. When the job has been
// deleted, and that is on disk, its directory is removed ([Dir.Remove]). A crash
// between two of these steps leaves a directory that no job names, and the next
// start sweeps it away ([Dir.Sweep]); it never leaves a job without its files.
package files

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Options bound what is kept. A zero field means its default.
type Options struct {
	MaxFile   int64 // bytes of a file; 512 MiB
	MaxStaged int64 // bytes of all files whose jobs are not stored yet; 16 files of the largest size
	KeepFree  int64 // bytes of the disk that no file may take; 64 MiB
	TrackSize bool  // [Dir.Size] is asked for
	// Free says how much of the disk may still be written, where that is known; nil asks
	// the system.
	Free func() (bytes int64, known bool)
	Log  *slog.Logger
}

// The defaults.
const (
	defaultMaxFile  = 512 << 20
	defaultKeepFree = 64 << 20
	stagedFiles     = 16
	filesPerJob     = 2 // of the largest size: so much may a job's files weigh together
)

// Dir is the directory of all files.
type Dir struct {
	// Set once.
	root    string // absolute
	options Options
	opened  time.Time

	mu sync.Mutex
	// Guarded by mu.
	staged  int64 // bytes of the files whose jobs are not stored yet
	writing int64 // those of them that were let in and are not written yet

	sizes sizes
}

// Open makes the directory when it is missing.
func Open(root string, o Options) (*Dir, error) {
	root, err := filepath.Abs(root)
	if err == nil {
		err = os.MkdirAll(root, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("the directory of the jobs' files cannot be made: %w", err)
	}
	if o.MaxFile == 0 {
		o.MaxFile = defaultMaxFile
	}
	if o.MaxStaged == 0 {
		o.MaxStaged = stagedFiles * o.MaxFile
	}
	if o.KeepFree == 0 {
		o.KeepFree = defaultKeepFree
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Free == nil {
		o.Free = func() (int64, bool) { return Free(root) }
	}
	return &Dir{root: root, options: o, opened: time.Now()}, nil
}

// Free is how much of the disk this process may still write; not known on every
// system.
func (d *Dir) Free() (bytes int64, known bool) { return Free(d.root) }

// MaxFile is how many bytes a file may have.
func (d *Dir) MaxFile() int64 { return d.options.MaxFile }

// MaxJob is how many bytes the files of one job may have together: twice as many
// as one file.
func (d *Dir) MaxJob() int64 { return filesPerJob * d.options.MaxFile }

// Path is where a job's file lies.
func (d *Dir) Path(id job.ID, f job.File) string { return filepath.Join(d.jobDir(id), f.Name) }

// jobDir is a job's directory.
func (d *Dir) jobDir(id job.ID) string { return filepath.Join(d.root, id.String()) }

// Open opens a job's file, for reading.
func (d *Dir) Open(id job.ID, f job.File) (*os.File, error) {
	file, err := os.Open(d.Path(id, f))
	if os.IsNotExist(err) {
		return nil, job.Wrapf(job.NotFound, err, "the file %s is gone", job.Quote(f.Name))
	}
	return file, err
}

// Remove removes the files of jobs that do not exist, or do no more. What cannot be
// removed is found again by the next [Dir.Sweep].
func (d *Dir) Remove(ids ...job.ID) {
	for _, id := range ids {
		if d.options.TrackSize {
			d.sizes.subtract(id, d.jobDir(id))
		}
		d.removeAll(id)
	}
}

// removeAll removes files that nobody counted.
func (d *Dir) removeAll(id job.ID) {
	if err := os.RemoveAll(d.jobDir(id)); err != nil {
		d.options.Log.Warn("files that belong to no job could not be removed; the next start tries again", "directory", d.jobDir(id), "error", err)
	}
}
