package files

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// chunkSize is what is held of a file while it comes.
const chunkSize = 64 << 10

// Stage takes in the files of a job that is not stored yet. It is used by one
// goroutine, which calls Keep or Discard in the end.
type Stage struct {
	// Set once.
	dir *Dir
	id  job.ID

	files []job.File
	made  bool // the job's directory
	bytes int64
	buf   []byte // nil until needed
}

// Stage begins to take in files under the id of a job that is yet to be stored.
func (d *Dir) Stage(id job.ID) *Stage { return &Stage{dir: d, id: id} }

// ID is the id that the job must be stored under.
func (s *Stage) ID() job.ID { return s.id }

// Files are what was received, in that order.
func (s *Stage) Files() []job.File { return s.files }

// Bytes is how much was received.
func (s *Stage) Bytes() int64 { return s.bytes }

// Receive writes a file to the disk as it comes, and returns when its bytes are
// synced. Of the name only what comes after the last slash is kept, without what
// is not printable and without dots and spaces at its ends; two files of a job have
// different names. An error of from is returned as it is; after an error the stage
// is of no use but for Discard.
//
// Refusals: job.Invalid, of the name; job.TooLarge; job.NoSpace, when the disk has
// no more room; job.Overloaded, when too much is being received; job.Unavailable,
// when the disk cannot be written.
func (s *Stage) Receive(ctx context.Context, name, contentType string, from io.Reader) (job.File, error) {
	if len(s.files) == job.MaxFiles {
		return job.File{}, job.Errorf(job.TooLarge, "a job has at most %d files", job.MaxFiles)
	}
	name, err := cleanName(name)
	if err != nil {
		return job.File{}, err
	}
	file, err := s.create(name)
	if err != nil {
		return job.File{}, err
	}
	f := job.File{Name: name, ContentType: contentType}
	err = s.fill(ctx, file, &f, from)
	if closed := file.Close(); err == nil && closed != nil {
		err = writeError(closed)
	}
	if err != nil {
		return job.File{}, err
	}
	s.files = append(s.files, f)
	return f, nil
}

// create makes a file that was not there before.
func (s *Stage) create(name string) (*os.File, error) {
	if !s.made {
		if err := os.Mkdir(s.dir.jobDir(s.id), 0o700); err != nil {
			return nil, writeError(err)
		}
		s.made = true
	}
	file, err := os.OpenFile(s.dir.Path(s.id, job.File{Name: name}), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, os.ErrExist): // also where the disk does not tell a from A
		return nil, job.Wrapf(job.Invalid, err, "there are two files %s; give each a name of its own", job.Quote(name))
	case errors.Is(err, syscall.ENAMETOOLONG):
		return nil, job.Wrapf(job.Invalid, err, "the name of the file %s is too long", job.Quote(name))
	case err != nil:
		return nil, writeError(err)
	}
	return file, nil
}

// fill writes what comes to the file, and says in f what it was.
func (s *Stage) fill(ctx context.Context, file *os.File, f *job.File, from io.Reader) error {
	if s.buf == nil {
		s.buf = make([]byte, chunkSize)
	}
	hash := sha256.New()
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, ended, err := readFull(from, s.buf)
		if err != nil {
			return err
		}
		f.Size += int64(n)
		if err := s.accept(f, int64(n)); err != nil {
			return err
		}
		hash.Write(s.buf[:n])
		_, err = file.Write(s.buf[:n])
		s.dir.unreserve(int64(n))
		if err != nil {
			return writeError(err)
		}
		if ended {
			f.SHA256 = hex.EncodeToString(hash.Sum(nil))
			return writeError(file.Sync())
		}
	}
}

// readFull reads until p is full or what comes has ended. An end is io.EOF and nothing
// else: io.ErrUnexpectedEOF, which io.ReadFull makes of an end, is how a reader says
// that it was cut off.
func readFull(from io.Reader, p []byte) (n int, ended bool, err error) {
	for n < len(p) {
		m, err := from.Read(p[n:])
		n += m
		if err != nil {
			if err == io.EOF {
				return n, true, nil
			}
			return n, false, err
		}
	}
	return n, false, nil
}

// accept counts so many more bytes of a file, which are then written, or says why they are
// too many.
func (s *Stage) accept(f *job.File, n int64) error {
	d := s.dir
	if f.Size > d.MaxFile() {
		return job.Errorf(job.TooLarge, "the file %s is larger than the %d bytes that this server takes", job.Quote(f.Name), d.MaxFile())
	}
	if s.bytes+n > d.MaxJob() {
		return job.Errorf(job.TooLarge, "the files of the job are larger together than the %d bytes that this server takes", d.MaxJob())
	}
	if err := d.reserve(n); err != nil {
		return err
	}
	s.bytes += n
	return nil
}

// reserve counts bytes that are to be written for a job that is not stored yet. The disk
// is looked at each time, which costs little beside the piece, and what others are about
// to write counts: together uploads take nothing of what is kept free.
func (d *Dir) reserve(n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.staged+n > d.options.MaxStaged {
		return &job.Error{Code: job.Overloaded, Message: "too many files are being received at the moment: try again in a moment", RetryAfter: 5 * time.Second}
	}
	if free, known := d.options.Free(); known && free < d.options.KeepFree+d.writing+n {
		return noSpace(nil)
	}
	d.staged += n
	d.writing += n
	return nil
}

// unreserve says that bytes which were reserved are on the disk, or will not be.
func (d *Dir) unreserve(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writing -= n
}

// Commit returns when the files would survive a power cut. From then on they wait
// for their job to be stored: whoever learns for certain that it is not calls
// [Dir.Remove].
func (s *Stage) Commit() error {
	if s.made {
		for _, path := range []string{s.dir.jobDir(s.id), s.dir.root} {
			if err := syncDir(path); err != nil {
				return writeError(err)
			}
		}
		s.dir.sizes.add(s.bytes)
	}
	s.release()
	return nil
}

// Discard removes what was received. After a Keep it does nothing.
func (s *Stage) Discard() {
	if s.dir == nil {
		return
	}
	if s.made {
		s.dir.removeAll(s.id)
	}
	s.release()
}

// release ends the stage.
func (s *Stage) release() {
	s.dir.mu.Lock()
	s.dir.staged -= s.bytes
	s.dir.mu.Unlock()
	s.dir, s.buf = nil, nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// writeError is the refusal for a disk that did not take a file; nil for no error.
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
