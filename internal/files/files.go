// Package files keeps the files that come with jobs. The files of a job are in a directory of
// its own, under the names that the job has for them:
//
//	<root>/<job id>/<file name>
//
// Nothing else is stored there: a copy of the store and of the root is a complete copy.
//
// The life of a file: it is received into the directory of a job that does not exist yet
// ([Dir.Stage]) and synced; then the job is stored. Once the job's delete is on disk, its
// directory is removed ([Dir.Remove]). A crash between two of these steps leaves a directory
// without a job, which the next start removes ([Dir.Sweep]). It never leaves a job without its
// files.
package files

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Options are the limits of a [Dir]. A zero field has the default value that its comment names.
type Options struct {
	MaxFile   int64 // bytes of a file; 512 MiB
	MaxStaged int64 // bytes of all files whose jobs are not stored yet; 16 times MaxFile
	KeepFree  int64 // bytes of the disk that files leave free; 64 MiB
	TrackSize bool  // whether [Dir.Size] will be called
	// Free returns the bytes of the disk that may still be written, where they are known. nil
	// asks the operating system.
	Free func() (bytes int64, known bool)
	Log  *slog.Logger
}

// The defaults.
const (
	defaultMaxFile  = 512 << 20
	defaultKeepFree = 64 << 20
	stagedFiles     = 16
	filesPerJob     = 2 // the files of one job together may be this many times MaxFile
)

// Dir is the directory of all files. Any goroutine may call its methods.
type Dir struct {
	// Set once.
	root    string // absolute
	options Options
	opened  time.Time

	mu sync.Mutex
	// Guarded by mu.
	staged  int64 // bytes of the files whose jobs are not stored yet
	writing int64 // the part of staged that was reserved and is not written yet

	sizes sizes
}

// Open opens the directory, and creates it when it is missing.
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

// Free returns the bytes of the disk that this process may still write. Not every operating
// system tells.
func (d *Dir) Free() (bytes int64, known bool) { return Free(d.root) }

// MaxFile is the largest size of a file, in bytes.
func (d *Dir) MaxFile() int64 { return d.options.MaxFile }

// MaxJob is the largest size of the files of one job together, in bytes: twice MaxFile.
func (d *Dir) MaxJob() int64 { return filesPerJob * d.options.MaxFile }

// Path is the absolute path of a job's file.
func (d *Dir) Path(id job.ID, f job.File) string { return filepath.Join(d.jobDir(id), f.Name) }

// jobDir is the path of a job's directory.
func (d *Dir) jobDir(id job.ID) string { return filepath.Join(d.root, id.String()) }

// Open opens a job's file for reading. It returns [job.NotFound] when the file is gone, also when
// something else is in its place: a command that works on the files may have put a link there,
// to a file that does not belong to the job.
func (d *Dir) Open(id job.ID, f job.File) (*os.File, error) {
	file, err := d.openRegular(id, f.Name)
	if os.IsNotExist(err) || errors.Is(err, errReplaced) {
		return nil, job.Wrapf(job.NotFound, err, "the file %s is gone", job.Quote(f.Name))
	}
	return file, err
}

// errReplaced is the reason why a file is not opened.
var errReplaced = errors.New("files: a file or its directory was replaced by something else")

// openRegular opens a file in the directory of a job. It follows no link out of that directory,
// whatever happens there meanwhile, and does not wait for the other end of a pipe.
func (d *Dir) openRegular(id job.ID, name string) (*os.File, error) {
	found, err := os.Lstat(d.jobDir(id))
	if err != nil {
		return nil, err
	}
	if !found.IsDir() {
		return nil, errReplaced
	}
	dir, err := os.OpenRoot(d.jobDir(id))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// A link may have replaced it since.
	if opened, err := dir.Stat("."); err != nil || !os.SameFile(found, opened) {
		return nil, errors.Join(errReplaced, err)
	}
	if info, err := dir.Lstat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errReplaced
	}
	file, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = file.Close()
		return nil, errors.Join(errReplaced, err)
	}
	return file, nil
}

// Remove removes the files of jobs that were deleted or never stored. It logs an error; the
// next [Dir.Sweep] tries again.
func (d *Dir) Remove(ids ...job.ID) {
	for _, id := range ids {
		if d.options.TrackSize {
			d.sizes.subtract(id, d.jobDir(id))
		}
		d.removeAll(id)
	}
}

// removeAll removes a job's directory without changing the size.
func (d *Dir) removeAll(id job.ID) {
	if err := os.RemoveAll(d.jobDir(id)); err != nil {
		d.options.Log.Warn("files without a job could not be removed; the next start tries again", "directory", d.jobDir(id), "error", err)
	}
}
