//go:build unix

package files

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// What a command puts in the place of a job's file is never opened, counted or removed as if it
// were the file.
func TestReplacedFilesAreNotOpened(t *testing.T) {
	t.Parallel()
	for what, replace := range map[string]func(dir, file, other string) error{
		"a link to a file elsewhere": func(_, file, other string) error {
			return errors.Join(os.Remove(file), os.Symlink(filepath.Join(other, "secret"), file))
		},
		"a link to a directory": func(_, file, other string) error {
			return errors.Join(os.Remove(file), os.Symlink(other, file))
		},
		"a directory": func(_, file, _ string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) },
		"a pipe":      func(_, file, _ string) error { return errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600)) },
		"a link for its directory": func(dir, _, other string) error {
			return errors.Join(os.RemoveAll(dir), os.Symlink(other, dir), os.WriteFile(filepath.Join(other, "a"), []byte("of other"), 0o600))
		},
		"a pipe for its directory": func(dir, _, _ string) error {
			return errors.Join(os.RemoveAll(dir), syscall.Mkfifo(dir, 0o600))
		},
	} {
		d := open(t, Options{TrackSize: true})
		id, other := commitFiles(t, d, "a"), t.TempDir()
		if err := os.WriteFile(filepath.Join(other, "secret"), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := replace(d.jobDir(id), d.Path(id, job.File{Name: "a"}), other); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Open(t.Context(), id, job.File{Name: "a"}); err == nil {
			t.Errorf("%s was opened", what)
		} else if job.CodeOf(err) != job.NotFound {
			t.Errorf("%s: %v", what, err)
		}
		d.Remove(id)
		if _, err := os.Stat(filepath.Join(other, "secret")); err != nil {
			t.Errorf("%s: a link was followed by the remove: %v", what, err)
		}
		if _, err := os.Lstat(d.jobDir(id)); !os.IsNotExist(err) {
			t.Errorf("%s: the directory is not removed: %v", what, err)
		}
	}
}
