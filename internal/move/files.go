package move

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/dump"
)

// chunkBytes is the size of the chunks of files in the database; see its migration 0002.
const chunkBytes = 256 << 10

// files copies the files of a job, each as it was submitted. A job that has lost one keeps the
// others.
func (c *copier) files(j *dump.Job) error {
	lost := false
	for _, f := range j.Files {
		switch err := c.file(j, f); {
		case errors.Is(err, errLost):
			lost = true
		case err != nil:
			return err
		}
	}
	if lost {
		c.to.NoteLost(j.ID.String())
	}
	return nil
}

// errLost means that a file is missing, or is not the one that was submitted.
var errLost = errors.New("move: a file is lost")

func (c *copier) file(j *dump.Job, f job.File) error {
	file, err := files.OpenRegular(filepath.Join(c.from.Files, j.ID.String()), f.Name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, files.ErrReplaced) {
		return errLost
	}
	if err != nil {
		return fmt.Errorf("a file of the job %s cannot be read: %w", j.ID, err)
	}
	defer file.Close()
	// A command may have changed the file, so it is read twice: nothing is sent of a wrong one.
	hash := sha256.New()
	if err := c.read(file, func(_ int64, data []byte) error { hash.Write(data); return nil }); err != nil {
		return fmt.Errorf("a file of the job %s cannot be read: %w", j.ID, err)
	}
	sum := hash.Sum(nil)
	if size, _ := file.Seek(0, io.SeekCurrent); size != f.Size || hex.EncodeToString(sum) != f.SHA256 {
		return errLost
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	id := [16]byte(job.NewID())
	if err := c.to.File(c.ctx, id, j.ID, f.Name, f.Size, sum); err != nil {
		return err
	}
	return c.read(file, func(n int64, data []byte) error {
		if n%64 == 0 {
			c.show("")
		}
		return c.to.Chunk(c.ctx, id, n, data)
	})
}

// read calls f for each chunk of a file.
func (c *copier) read(file *os.File, f func(n int64, data []byte) error) error {
	buf := make([]byte, chunkBytes)
	for n := int64(0); ; n++ {
		size, err := io.ReadFull(file, buf)
		if size > 0 {
			if err := errors.Join(c.ctx.Err(), f(n, buf[:size])); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
