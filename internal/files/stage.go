package files

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Stage receives the files of a job that is not stored yet. One goroutine uses it, and calls
// Commit or Discard in the end.
type Stage struct {
	// Set once.
	intake *Intake
	id     job.ID

	target Target // nil after Commit or Discard
	files  []job.File
	bytes  int64
	buf    []byte // nil until needed
}

// Target is where a [Stage] writes the files of its job. One goroutine calls it. After an error
// only Discard is called. Its errors are a [job.Error] or the cause of ctx.
type Target interface {
	// Create begins a file, after the one before it was finished.
	Create(ctx context.Context, name string) error
	// Write appends bytes to the file: [Limits.ChunkSize] of them, or fewer at its end. It does
	// not keep p.
	Write(ctx context.Context, p []byte) error
	// Finish ends the file f.
	Finish(ctx context.Context, f job.File) error
	// Commit returns when the files survive a power cut.
	Commit(ctx context.Context) error
	// Discard removes the files.
	Discard()
}

// ID is the id under which the job must be stored.
func (s *Stage) ID() job.ID { return s.id }

// Files are the received files, in that order.
func (s *Stage) Files() []job.File { return s.files }

// Bytes is the number of bytes received.
func (s *Stage) Bytes() int64 { return s.bytes }

// Receive stores a file while it arrives. The file's name is derived from name: the part after
// the last slash, without characters that are not printable, and without dots and spaces at the
// ends. Two files of a job must have different names. An error of from is returned unchanged.
// After an error the caller can only Discard the stage.
//
// Refusals: job.Invalid for the name; job.TooLarge; job.NoSpace when the disk is full;
// job.Overloaded when too many bytes are being received; job.Unavailable when the file cannot be
// written.
func (s *Stage) Receive(ctx context.Context, name, contentType string, from io.Reader) (job.File, error) {
	if len(s.files) == job.MaxFiles {
		return job.File{}, job.Errorf(job.TooLarge, "a job has at most %d files", job.MaxFiles)
	}
	name, err := cleanName(name)
	if err != nil {
		return job.File{}, err
	}
	if slices.ContainsFunc(s.files, func(f job.File) bool { return f.Name == name }) {
		return job.File{}, sameName(name, nil)
	}
	f := job.File{Name: name, ContentType: contentType}
	if err = s.target.Create(ctx, name); err == nil {
		err = s.fill(ctx, &f, from)
	}
	if err != nil {
		return job.File{}, err
	}
	s.files = append(s.files, f)
	return f, nil
}

// sameName refuses a second file of a name.
func sameName(name string, cause error) error {
	return job.Wrapf(job.Invalid, cause, "there are two files %s; give each a name of its own", job.Quote(name))
}

// fill copies from to the file, and sets the size and hash in f.
func (s *Stage) fill(ctx context.Context, f *job.File, from io.Reader) error {
	if s.buf == nil {
		s.buf = make([]byte, s.intake.limits.ChunkSize)
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
		if n > 0 {
			err = s.target.Write(ctx, s.buf[:n])
		}
		s.intake.unreserve(int64(n))
		if err != nil {
			return err
		}
		if ended {
			f.SHA256 = hex.EncodeToString(hash.Sum(nil))
			return s.target.Finish(ctx, *f)
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
	if limit := s.intake.MaxFile(); f.Size > limit {
		return job.Errorf(job.TooLarge, "the file %s is larger than the %d bytes that this server takes", job.Quote(f.Name), limit)
	}
	if limit := s.intake.MaxJob(); s.bytes+n > limit {
		return job.Errorf(job.TooLarge, "the files of the job are larger together than the %d bytes that this server takes", limit)
	}
	if err := s.intake.reserve(n); err != nil {
		return err
	}
	s.bytes += n
	return nil
}

// Commit returns when the files survive a power cut. From then on they belong to the job that is
// about to be stored. When the job is certainly not stored, the caller calls [Store.Remove].
// After an error the caller can only Discard the stage.
func (s *Stage) Commit(ctx context.Context) error {
	if err := s.target.Commit(ctx); err != nil {
		return err
	}
	s.release()
	return nil
}

// Discard removes the received files. After a Commit it does nothing.
func (s *Stage) Discard() {
	if s.target == nil {
		return
	}
	s.target.Discard()
	s.release()
}

// release ends the stage: its bytes no longer count as staged.
func (s *Stage) release() {
	s.intake.release(s.bytes)
	s.target, s.buf = nil, nil
}
