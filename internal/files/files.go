package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
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

const defaultKeepFree = 64 << 20

// Dir keeps all files in one directory, those of a job in a directory of its own, under the names
// that the job has for them:
//
//	<root>/<job id>/<file name>
//
// Nothing else is stored there: a copy of the store and of the root is a complete copy. A crash
// between the commit of files and the submit of their job leaves a directory without a job, which
// the next start removes ([Dir.Sweep]). Only one process may use the directory.
type Dir struct {
	*Intake

	// Set once.
	root    string // absolute
	options Options
	opened  time.Time

	sizes sizes
}

var _ Store = (*Dir)(nil)

// Open opens the directory, and creates it when it is missing.
func Open(root string, o Options) (*Dir, error) {
	root, err := filepath.Abs(root)
	if err == nil {
		err = os.MkdirAll(root, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("the directory of the jobs' files cannot be made: %w", err)
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
	intake := NewIntake(Limits{MaxFile: o.MaxFile, MaxStaged: o.MaxStaged, ChunkSize: chunkSize})
	intake.hasRoom = func(n int64) bool {
		free, known := o.Free()
		return !known || free >= o.KeepFree+n
	}
	return &Dir{Intake: intake, root: root, options: o, opened: time.Now()}, nil
}

// Stage implements [Store].
func (d *Dir) Stage(id job.ID) *Stage { return d.NewStage(id, &dirTarget{dir: d, id: id}) }

// Fetch implements [Store]. The files are on the local disk already.
func (d *Dir) Fetch(_ context.Context, id job.ID, list []job.File) (paths []string, release func(), err error) {
	for _, f := range list {
		paths = append(paths, d.Path(id, f))
	}
	return paths, func() {}, nil
}

// Path is the absolute path of a job's file.
func (d *Dir) Path(id job.ID, f job.File) string { return filepath.Join(d.jobDir(id), f.Name) }

// jobDir is the path of a job's directory.
func (d *Dir) jobDir(id job.ID) string { return filepath.Join(d.root, id.String()) }

// Open implements [Store]. A file is also gone when something else is in its place: a command
// that works on the files may have put a link there, to a file that does not belong to the job.
func (d *Dir) Open(_ context.Context, id job.ID, f job.File) (io.ReadSeekCloser, error) {
	file, err := OpenRegular(d.jobDir(id), f.Name)
	if os.IsNotExist(err) || errors.Is(err, ErrReplaced) {
		return nil, job.Wrapf(job.NotFound, err, "the file %s is gone", job.Quote(f.Name))
	}
	if err != nil { // a nil *os.File would not be a nil reader
		return nil, err
	}
	return file, nil
}

// ErrReplaced is the reason why a file is not opened.
var ErrReplaced = errors.New("files: a file or its directory was replaced by something else")

// OpenRegular opens a file in the directory of a job. It follows no link out of that directory,
// whatever happens there meanwhile, and does not wait for the other end of a pipe.
func OpenRegular(jobDir, name string) (*os.File, error) {
	found, err := os.Lstat(jobDir)
	if err != nil {
		return nil, err
	}
	if !found.IsDir() {
		return nil, ErrReplaced
	}
	dir, err := os.OpenRoot(jobDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// A link may have replaced it since.
	if opened, err := dir.Stat("."); err != nil || !os.SameFile(found, opened) {
		return nil, errors.Join(ErrReplaced, err)
	}
	if info, err := dir.Lstat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, ErrReplaced
	}
	file, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = file.Close()
		return nil, errors.Join(ErrReplaced, err)
	}
	return file, nil
}

// Remove implements [Store]. The next [Dir.Sweep] removes what is left after an error.
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
