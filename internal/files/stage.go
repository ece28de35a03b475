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

// chunkSize is the part of a file that is in memory while it is received.
const chunkSize = 64 << 10

// Stage receives the files of a job that is not stored yet. One goroutine uses it, and calls
// Commit or Discard in the end.
type Stage struct {
	// Set once.
	dir *Dir
	id  job.ID

	files []job.File
	made  bool // the job's directory
	bytes int64
	buf   []byte // nil until needed
}

// Stage begins to receive files under the id of a job that is not stored yet.
func (d *Dir) Stage(id job.ID) *Stage { return &Stage{dir: d, id: id} }

// ID is the id under which the job must be stored.
func (s *Stage) ID() job.ID { return s.id }

// Files are the received files, in that order.
func (s *Stage) Files() []job.File { return s.files }

// Bytes is the number of bytes received.
func (s *Stage) Bytes() int64 { return s.bytes }

// Receive writes a file to the disk while it arrives, and returns when its bytes are synced. The
// file's name is derived from name: the part after the last slash, without characters that are
// not printable, and without dots and spaces at the ends. Two files of a job must have
// different names. An error of from is returned unchanged. After an error the caller can only
// Discard the stage.
//
// Refusals: job.Invalid for the name; job.TooLarge; job.NoSpace when the disk is full;
// job.Overloaded when too many bytes are being received; job.Unavailable when the disk cannot be
// written.
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
	// A network file system may report a failed write only when the file is closed.
	if closed := file.Close(); err == nil && closed != nil {
		err = writeError(closed)
	}
	if err != nil {
		return job.File{}, err
	}
	s.files = append(s.files, f)
	return f, nil
}

// create makes a new file, and the job's directory before the first one.
func (s *Stage) create(name string) (*os.File, error) {
	if !s.made {
		if err := os.Mkdir(s.dir.jobDir(s.id), 0o700); err != nil {
			return nil, writeError(err)
		}
		s.made = true
	}
	file, err := os.OpenFile(s.dir.Path(s.id, job.File{Name: name}), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, os.ErrExist): // on some disks also for names that differ in case only
		return nil, job.Wrapf(job.Invalid, err, "there are two files %s; give each a name of its own", job.Quote(name))
	case errors.Is(err, syscall.ENAMETOOLONG):
		return nil, job.Wrapf(job.Invalid, err, "the name of the file %s is too long", job.Quote(name))
	case err != nil:
		return nil, writeError(err)
	}
	return file, nil
}

// fill copies from to the file, and sets the size and hash in f.
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

// readFull reads until p is full or from has ended. Only io.EOF is an end. io.ReadFull cannot be
// used: it returns io.ErrUnexpectedEOF for an end, and a request body returns that same error
// when its connection was cut.
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

// accept counts n more bytes of a file before they are written, or refuses them.
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

// reserve counts bytes that will be written for a job that is not stored yet. It asks for the
// free bytes of the disk each time, which costs little compared with the write of a chunk.
// Bytes that other uploads have reserved count too, so that parallel uploads together leave
// KeepFree.
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

// unreserve ends a reservation: the bytes are on the disk, or will not be written.
func (d *Dir) unreserve(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writing -= n
}

// Commit returns when the files survive a power cut. From then on they belong to the job that is
// about to be stored. When the job is certainly not stored, the caller calls [Dir.Remove].
func (s *Stage) Commit() error {
	if s.made {
		// Receive has synced the bytes. The names are in the job's directory and in the root.
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

// Discard removes the received files. After a Commit it does nothing.
func (s *Stage) Discard() {
	if s.dir == nil {
		return
	}
	if s.made {
		s.dir.removeAll(s.id)
	}
	s.release()
}

// release ends the stage: its bytes no longer count as staged.
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
