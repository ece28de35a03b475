package pgfiles

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Fetch implements [files.Store]. It copies the files to the cache, unless they are there, and
// checks their hashes in any case: a command may have changed its files. Attempts of one job
// share the copies. Room for all files of the job is taken at once, so that two attempts never
// wait for each other.
func (s *Store) Fetch(ctx context.Context, id job.ID, list []job.File) (paths []string, release func(), err error) {
	var bytes int64
	for _, f := range list {
		bytes += f.Size
		paths = append(paths, filepath.Join(s.cache.path, id.String(), f.Name))
	}
	j, err := s.cache.enter(ctx, id, bytes)
	if err != nil {
		return nil, nil, err
	}
	if err := s.fill(ctx, j, list); err != nil {
		s.cache.leave(j)
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		return nil, nil, faultOf(err)
	}
	return paths, sync.OnceFunc(func() { s.cache.leave(j) }), nil
}

// errChanged is the error of a file that is not as it was submitted.
var errChanged = errors.New("pgfiles: the file in the database is not the one that was submitted")

// errCacheFull is the error of a file for whose copy the disk has no room.
var errCacheFull = errors.New("pgfiles: the disk is full")

// faultOf returns the fault of an attempt whose files could not be fetched. Only the loss of a
// file is final. Otherwise the files are there, and the job waits as for an upstream.
func faultOf(err error) *job.Fault {
	switch {
	case errors.Is(err, errRemoved) || errors.Is(err, errChanged):
		return &job.Fault{Code: "files_changed", Class: job.Final, Err: err, Message: "a file of the job is gone or damaged: submit the job again"}
	case errors.Is(err, errCacheFull):
		return &job.Fault{Code: "files_unavailable", Class: job.Wait, Err: err, Message: "the server's disk has no room for the files of the job"}
	}
	return &job.Fault{Code: "files_unavailable", Class: job.Wait, Err: err, Message: "the server could not copy the files of the job to its disk"}
}

// fill makes the copies of a job's files complete. One goroutine at a time does so for a job.
func (s *Store) fill(ctx context.Context, j *cachedJob, list []job.File) error {
	select {
	case j.filling <- struct{}{}:
		defer func() { <-j.filling }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var stored map[string]storedFile
	for _, f := range list {
		switch intact, err := s.cache.isIntact(ctx, j.id, f); {
		case err != nil:
			return err
		case intact:
			continue
		}
		if stored == nil {
			var err error
			if stored, err = s.storedFiles(ctx, j.id); err != nil {
				return err
			}
		}
		found, ok := stored[f.Name]
		if !ok {
			return errRemoved
		}
		if err := s.fetch(ctx, j.id, found, f); err != nil {
			return err
		}
	}
	return nil
}

// isIntact reports whether the copy of a file is there and has its hash. It returns an error
// only when ctx has ended.
func (c *cache) isIntact(ctx context.Context, id job.ID, f job.File) (bool, error) {
	file, err := files.OpenRegular(filepath.Join(c.path, id.String()), f.Name)
	if err != nil {
		return false, nil
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Size() != f.Size {
		return false, nil
	}
	hash := sha256.New()
	buf := make([]byte, chunkSize)
	for {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		n, err := file.Read(buf)
		hash.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(hash.Sum(nil)) == f.SHA256, nil
		}
		if err != nil {
			return false, nil
		}
	}
}

// partName is the name of a file that is being fetched. No file of a job begins with a dot.
const partName = ".part"

// fetch copies a file from the database. It gets its name when it is complete.
func (s *Store) fetch(ctx context.Context, id job.ID, stored storedFile, f job.File) error {
	if stored.size != f.Size {
		return errChanged
	}
	if !s.cache.makeRoom(f.Size) {
		return errCacheFull
	}
	dir, err := s.cache.jobDir(id)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = s.copyTo(ctx, dir, stored, f)
	if err == nil {
		if err = dir.Rename(partName, f.Name); errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.EISDIR) {
			// A command has put a directory in its place.
			err = errors.Join(dir.RemoveAll(f.Name), dir.Rename(partName, f.Name))
		}
	}
	if err != nil {
		_ = dir.Remove(partName)
	}
	return err
}

// jobDir opens the directory of a job, and makes it if it is missing. Something else in its place
// is removed: a command may have put a link there.
func (c *cache) jobDir(id job.ID) (*os.Root, error) {
	name := id.String()
	if info, err := c.root.Lstat(name); err == nil && !info.IsDir() {
		if err := c.root.Remove(name); err != nil {
			return nil, err
		}
	}
	if err := c.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, full(err)
	}
	return c.root.OpenRoot(name)
}

// copyTo writes a file from the database to partName and checks its hash.
func (s *Store) copyTo(ctx context.Context, dir *os.Root, stored storedFile, f job.File) error {
	if err := dir.RemoveAll(partName); err != nil {
		return err
	}
	to, err := dir.OpenFile(partName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return full(err)
	}
	hash := sha256.New()
	for n := int64(0); n*chunkSize < stored.size && err == nil; n++ {
		var data []byte
		if data, err = s.readChunk(ctx, stored, n); err == nil {
			hash.Write(data)
			_, err = to.Write(data)
		}
	}
	if closed := to.Close(); err == nil {
		err = closed
	}
	if err == nil && hex.EncodeToString(hash.Sum(nil)) != f.SHA256 {
		err = errChanged
	}
	return full(err)
}

// full adds errCacheFull to the error of a disk without room.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", errCacheFull, err)
	}
	return err
}
