package files

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// chunkSize is the part of a file that is in memory while a [Dir] receives it.
const chunkSize = 64 << 10

// dirTarget writes the files of a job to its directory.
type dirTarget struct {
	// Set once.
	dir *Dir
	id  job.ID

	made  bool     // the job's directory
	file  *os.File // that is being written; nil before and after
	bytes int64    // of finished files
}

// Create makes a new file, and the job's directory before the first one.
func (t *dirTarget) Create(_ context.Context, name string) (err error) {
	if !t.made {
		if err := os.Mkdir(t.dir.jobDir(t.id), 0o700); err != nil {
			return writeError(err)
		}
		t.made = true
	}
	file, err := os.OpenFile(t.dir.Path(t.id, job.File{Name: name}), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, os.ErrExist): // on some disks also for names that differ in case only
		return sameName(name, err)
	case errors.Is(err, syscall.ENAMETOOLONG):
		return job.Wrapf(job.Invalid, err, "the name of the file %s is too long", job.Quote(name))
	case err != nil:
		return writeError(err)
	}
	t.file = file
	return nil
}

// Write implements [Target].
func (t *dirTarget) Write(_ context.Context, p []byte) error {
	_, err := t.file.Write(p)
	return writeError(err)
}

// Finish syncs the file and closes it.
func (t *dirTarget) Finish(_ context.Context, f job.File) error {
	err := t.file.Sync()
	// A network file system may report a failed write only when the file is closed.
	if closed := t.file.Close(); err == nil {
		err = closed
	}
	t.file = nil
	t.bytes += f.Size
	return writeError(err)
}

// Commit syncs the names of the files, which are in the job's directory and in the root.
func (t *dirTarget) Commit(context.Context) error {
	if !t.made {
		return nil
	}
	for _, path := range []string{t.dir.jobDir(t.id), t.dir.root} {
		if err := syncDir(path); err != nil {
			return writeError(err)
		}
	}
	t.dir.sizes.add(t.bytes)
	return nil
}

// Discard implements [Target].
func (t *dirTarget) Discard() {
	if t.file != nil {
		_ = t.file.Close()
	}
	if t.made {
		t.dir.removeAll(t.id)
	}
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// writeError is the refusal for a failed write; nil for no error.
func writeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return noSpace(err)
	default:
		return job.Wrapf(job.Unavailable, err, "the server cannot write the file to its disk")
	}
}

func noSpace(cause error) error {
	return &job.Error{Code: job.NoSpace, Message: "the server's disk is full", RetryAfter: 30 * time.Second, Err: cause}
}
