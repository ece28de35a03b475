package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// Copied is what a backup came to.
type Copied struct {
	Database int64 // bytes
	Jobs     int   // with files
	Files    int
	Bytes    int64 // of the files
	// Gone are jobs that were deleted while they were copied: the copy does not have them.
	Gone []job.ID
	// Lost are jobs whose files are missing in the directory that was copied: the copy has
	// them, without their files.
	Lost []job.ID
}

// Backup copies the data directory from, which a server may be using, into a new one
// at to, files included. Nothing is at to before all is there and synced. It calls
// progress with the bytes of the database that are copied and those that there are.
//
// The database is copied as it is at one moment. A file is there before its job, and
// goes after it: so the files are linked first, or copied where that cannot be; then
// the database is copied; then what the jobs of the copy lack is added, and what
// belongs to none of them is taken away. A job that was deleted after the database was
// copied may have lost its files before they were taken: it is deleted in the copy, too.
func Backup(ctx context.Context, from, to string, progress func(done, total int64)) (Copied, error) {
	c := &copying{ctx: ctx, from: from, to: to, partial: to + ".partial"}
	if err := c.check(); err != nil {
		return c.Copied, err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return c.Copied, fmt.Errorf("the directory of the copy cannot be made: %w", err)
	}
	switch err := os.Mkdir(c.partial, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return c.Copied, fmt.Errorf("%s is there already: is another backup under way, or was one killed? Then delete it: %w", c.partial, err)
	case err != nil:
		return c.Copied, fmt.Errorf("the directory of the copy cannot be made: %w", err)
	}
	err := c.copy(progress)
	if err != nil {
		err = errors.Join(err, os.RemoveAll(c.partial))
	}
	return c.Copied, err
}

// copying is a backup under way.
type copying struct {
	Copied
	ctx               context.Context
	from, to, partial string
}

// check refuses what cannot be copied, or not to there.
func (c *copying) check() error {
	if err := checkData(c.from); err != nil {
		return err
	}
	if inside(c.to, c.from) {
		return fmt.Errorf("%s is within %s, the directory that is to be copied", c.to, c.from)
	}
	switch names, err := os.ReadDir(c.to); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%s cannot take a copy: %w", c.to, err)
	case len(names) > 0:
		return fmt.Errorf("%s is there already and not empty: name a new directory", c.to)
	}
	return nil
}

// inside says whether a path is in a directory, or is the directory.
func inside(path, dir string) bool {
	path, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return false
	}
	way, err := filepath.Rel(dir, path)
	return err == nil && way != ".." && !strings.HasPrefix(way, ".."+string(filepath.Separator))
}

func (c *copying) copy(progress func(done, total int64)) error {
	for _, step := range []func() error{
		c.linkFiles,
		func() error { return sqlite.Backup(c.ctx, databaseIn(c.from), databaseIn(c.partial), progress) },
		c.completeFiles,
		c.copyRest,
		c.finish,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// linkFiles takes the files that are there now.
func (c *copying) linkFiles() error {
	jobs, err := os.ReadDir(filesIn(c.from))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, dir := range jobs {
		id, err := job.ParseID(dir.Name())
		if err != nil {
			continue
		}
		files, err := os.ReadDir(filepath.Join(filesIn(c.from), dir.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, f := range files {
			if err := c.take(id, f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// take links a job's file into the copy, or copies it to a disk of another kind.
func (c *copying) take(id job.ID, name string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	src, dst := filepath.Join(filesIn(c.from), id.String(), name), filepath.Join(filesIn(c.partial), id.String(), name)
	if err := os.MkdirAll(filepath.Dir(dst), 0o700); err != nil {
		return err
	}
	if err := os.Link(src, dst); err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return copyFile(src, dst)
}

// copyFile copies a file and syncs it.
func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// completeFiles makes the files of the copy those that its database names.
func (c *copying) completeFiles() error {
	named, without := map[string]bool{}, map[job.ID]job.Owner{}
	err := sqlite.Files(databaseIn(c.partial), func(o job.Owner, id job.ID, files []job.File) error {
		named[id.String()] = true
		c.Jobs++
		for _, f := range files {
			if err := c.complete(id, f); errors.Is(err, fs.ErrNotExist) {
				without[id] = o
				break
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && len(without) > 0 {
		err = c.explain(without, named)
	}
	if err != nil {
		return err
	}
	return c.dropOthers(named)
}

// explain finds out why jobs have no files. Those that the server has deleted are deleted
// in the copy, too: a job is removed before its files.
func (c *copying) explain(without map[job.ID]job.Owner, named map[string]bool) error {
	err := sqlite.Files(databaseIn(c.from), func(_ job.Owner, id job.ID, _ []job.File) error {
		if _, lacks := without[id]; lacks {
			c.Lost = append(c.Lost, id)
			delete(without, id)
		}
		return c.ctx.Err()
	})
	if err != nil || len(without) == 0 {
		return err
	}
	b := store.NewBatch()
	for id, owner := range without {
		b.Add(&store.Delete{Owner: owner, ID: id})
		c.Gone = append(c.Gone, id)
		c.Jobs--
		delete(named, id.String())
	}
	copied, err := sqlite.Open(c.ctx, databaseIn(c.partial), sqlite.Options{AtEnd: conversation.AtEnd})
	if err != nil {
		return err
	}
	return errors.Join(store.Commit(c.ctx, copied, b), copied.Close())
}

// complete takes a file that was not there, or not whole, when the others were taken.
func (c *copying) complete(id job.ID, f job.File) error {
	dst := filepath.Join(filesIn(c.partial), id.String(), f.Name)
	if info, err := os.Stat(dst); err != nil || info.Size() != f.Size {
		_ = os.Remove(dst)
		if err := c.take(id, f.Name); err != nil {
			return err
		}
	}
	c.Files++
	c.Bytes += f.Size
	return nil
}

// dropOthers removes from the copy the directories of jobs that it does not have, and
// syncs the others.
func (c *copying) dropOthers(named map[string]bool) error {
	dirs, err := os.ReadDir(filesIn(c.partial))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, dir := range dirs {
		path := filepath.Join(filesIn(c.partial), dir.Name())
		if err == nil && named[dir.Name()] {
			err = syncDir(path)
		} else if err == nil {
			err = os.RemoveAll(path)
		}
	}
	return errors.Join(err, syncDir(filesIn(c.partial)))
}

// copyRest copies what lies in the directory beside the database and the files, but
// for what belongs to the process that uses it.
func (c *copying) copyRest() error {
	for _, name := range []string{layoutFile, watchKeyFile} {
		err := copyFile(filepath.Join(c.from, name), filepath.Join(c.partial, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// finish gives the copy its name.
func (c *copying) finish() error {
	info, err := os.Stat(databaseIn(c.partial))
	if err != nil {
		return err
	}
	c.Database = info.Size()
	if err := syncDir(c.partial); err != nil {
		return err
	}
	if err := os.Remove(c.to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is in the way of the copy: %w", c.to, err)
	}
	if err := os.Rename(c.partial, c.to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(c.to))
}
