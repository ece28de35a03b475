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

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// Copied counts what a backup copied.
type Copied struct {
	Database int64 // bytes
	Jobs     int   // with files
	Files    int
	Bytes    int64 // of the files
	// Gone lists jobs that were deleted during the copy. They are not in it.
	Gone []job.ID
	// Lost lists jobs whose files are missing in the copied directory. They are in the copy,
	// without their files.
	Lost []job.ID
	// Keys are the ids of the keys that the copy is encrypted with. It does not contain them.
	Keys []string
}

// Backup copies the data directory from into a new one at to, with the files of jobs. A
// server may be using from. The directory to appears only when the copy is complete and
// synced. Backup calls progress with the number of bytes of the database that are copied,
// and their total.
//
// The database is copied as of one moment. A server stores a job's files before the job,
// and removes them after it. So Backup links the files first, or copies them to another
// file system. Then it copies the database. Then it adds files that the copied jobs lack,
// and removes files that belong to none of them. A job that was deleted after the copy of
// the database may have lost its files before they were linked: Backup deletes that job in
// the copy, too.
func Backup(ctx context.Context, from, to string, progress func(done, total int64)) (Copied, error) {
	c := &backup{ctx: ctx, from: from, to: to, partial: to + ".partial"}
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

// backup holds the state of one Backup.
type backup struct {
	Copied
	ctx               context.Context
	from, to, partial string
}

// check refuses directories that cannot be copied, or copied to.
func (c *backup) check() error {
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

// inside reports whether a path is in a directory, or is the directory.
func inside(path, dir string) bool {
	path, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return false
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

func (c *backup) copy(progress func(done, total int64)) error {
	for _, step := range []func() error{
		c.linkFiles,
		func() error { return sqlite.Backup(c.ctx, databaseIn(c.from), databaseIn(c.partial), progress) },
		c.listKeys,
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

// linkFiles links the files that exist now.
func (c *backup) linkFiles() error {
	jobs, err := os.ReadDir(filesIn(c.from))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, dir := range jobs {
		id, err := job.ParseID(dir.Name())
		if err != nil || !dir.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(filesIn(c.from), dir.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, f := range files {
			if err := c.linkFile(id, f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// linkFile links a job's file into the copy, or copies it where links are not possible. What a
// command has put in the place of a file or of its directory counts as missing.
func (c *backup) linkFile(id job.ID, name string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	src, dst := filepath.Join(filesIn(c.from), id.String(), name), filepath.Join(filesIn(c.partial), id.String(), name)
	dir, err := os.Lstat(filepath.Dir(src))
	if err != nil {
		return err
	}
	file, err := os.Lstat(src)
	if err != nil {
		return err
	}
	if !dir.IsDir() || !file.Mode().IsRegular() {
		return fs.ErrNotExist
	}
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

// completeFiles makes the files in the copy match its database.
func (c *backup) completeFiles() error {
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

// explain finds out why jobs lack files. A job that the server has deleted meanwhile is
// deleted in the copy, too: a server removes a job before its files.
func (c *backup) explain(without map[job.ID]job.Owner, named map[string]bool) error {
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
	copied, err := sqlite.Open(c.ctx, databaseIn(c.partial), sqlite.Options{AtEnd: atEnd(""), Keyless: true})
	if err != nil {
		return err
	}
	return errors.Join(store.Commit(c.ctx, copied, b), copied.Close())
}

// listKeys finds out which keys the copy needs.
func (c *backup) listKeys() error {
	rows, err := sqlite.SideRows(databaseIn(c.partial), encryptionRows)
	for _, r := range rows {
		if id, err := sealed.ParseKeyID(r.ID); err == nil && id != (sealed.KeyID{}) {
			c.Keys = append(c.Keys, r.ID)
		}
	}
	return err
}

// complete links a file that was missing or partial when linkFiles ran.
func (c *backup) complete(id job.ID, f job.File) error {
	dst := filepath.Join(filesIn(c.partial), id.String(), f.Name)
	if info, err := os.Stat(dst); err != nil || info.Size() != f.Size {
		_ = os.Remove(dst)
		if err := c.linkFile(id, f.Name); err != nil {
			return err
		}
	}
	c.Files++
	c.Bytes += f.Size
	return nil
}

// dropOthers removes the directories of jobs that are not in the copy, and syncs the
// others.
func (c *backup) dropOthers(named map[string]bool) error {
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

// copyRest copies the other entries of the directory, except those of the process that
// uses it.
func (c *backup) copyRest() error {
	for _, name := range []string{layoutFile, watchKeyFile, movedFile} {
		err := copyFile(filepath.Join(c.from, name), filepath.Join(c.partial, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// finish renames the copy to its final name.
func (c *backup) finish() error {
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
