package process

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Each attempt has a scratch directory, which the command finds in TMPDIR. It is removed after
// the attempt. [RemoveScratch] removes those of a killed server.

// The name of a scratch directory is this prefix and the first characters of the token. It is
// short because the path of a socket may have 107 bytes only.
const (
	scratchPrefix = "meanwhile-"
	scratchName   = 12
)

// makeScratch makes the attempt's scratch directory. It returns the files of the job: for a
// command that runs as another user, copies in that directory, because that user may not enter
// the data directory.
func (e *Executor) makeScratch(a *attempt, files []exec.File) ([]exec.File, error) {
	if err := makeScratchRoot(e.config.Scratch, e.user.isOther()); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(filepath.Join(e.config.Scratch, scratchPrefix+a.token[:scratchName]))
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	a.scratch = path
	if e.user.isOther() && len(files) > 0 {
		if files, err = copyFiles(filepath.Join(path, "files"), files); err != nil {
			return nil, err
		}
	}
	return files, e.user.ownDir(path)
}

// makeScratchRoot makes the directory that holds the scratch directories. Another user must be
// able to enter it, but not to list it, and to change nothing there.
func makeScratchRoot(root string, forOthers bool) error {
	if !forOthers {
		return os.MkdirAll(root, 0o700)
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return err
	}
	info, err := os.Lstat(root)
	if err == nil && (!info.IsDir() || !isOwnedHere(info) || info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0) {
		err = fmt.Errorf("another user can change the directory %s: remove it", root)
	}
	return err
}

// copyFiles copies the files into a new directory. The command may read the copies only.
func copyFiles(dir string, files []exec.File) ([]exec.File, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	copies := make([]exec.File, len(files))
	for i, f := range files {
		copies[i] = f
		copies[i].Path = filepath.Join(dir, f.Name)
		if err := copyFile(copies[i].Path, f.Path); err != nil {
			return nil, err
		}
	}
	return copies, nil
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// changedFault returns the fault of a job whose files are no longer as they came; nil if they
// are. A command must not change them, but one that runs as the server's user can, and a link in
// their place would give the next attempt any file of the server.
func changedFault(files []exec.File) *job.Fault {
	for _, f := range files {
		dir, err := os.Lstat(filepath.Dir(f.Path))
		info, fileErr := os.Lstat(f.Path)
		if err == nil && fileErr == nil && dir.IsDir() && info.Mode().IsRegular() && info.Size() == f.Size {
			continue
		}
		return &job.Fault{Code: "files_changed", Class: job.Final, Err: errors.Join(err, fileErr),
			Message: fmt.Sprintf("the file %s of the job is gone or changed, perhaps by the command in an earlier attempt: submit the job again", job.Quote(f.Name))}
	}
	return nil
}

// removeScratch removes the attempt's scratch directory.
func (e *Executor) removeScratch(a *attempt) {
	if a.scratch == "" {
		return
	}
	if err := removeTree(e.config.Scratch, filepath.Base(a.scratch)); err != nil {
		e.config.Log.Warn("the scratch directory of an attempt could not be removed; the next start tries again", "directory", a.scratch, "error", err)
	}
}

// RemoveScratch removes the scratch directories that a killed server has left in root. Call it
// after [OpenPIDFile] and before any command runs. The directory need not exist.
func RemoveScratch(root string, log *slog.Logger) {
	// Another user may have put something else in its place.
	if info, err := os.Lstat(root); err != nil || !info.IsDir() || !isOwnedHere(info) {
		return
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		log.Warn("scratch directories of an earlier server cannot be found", "directory", root, "error", err)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), scratchPrefix) {
			continue
		}
		if err := removeTree(root, entry.Name()); err != nil {
			log.Warn("the scratch directory of an earlier server could not be removed", "directory", filepath.Join(root, entry.Name()), "error", err)
		}
	}
}

// removeTree removes a directory in root. It follows no link out of root, whatever a process
// that is still running does there.
//
// It moves each subdirectory to root before it removes it. A command can nest directories deeper
// than this process may have files open, and a removal from the top holds one open per level.
func removeTree(root, name string) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	var errs []error
	names := []string{name}
	for moved := 0; len(names) > 0; {
		next := names[len(names)-1]
		names = names[:len(names)-1]
		err := emptyDir(dir, next, func(path string) error {
			moved++
			to := fmt.Sprintf("%s-%d", name, moved)
			if err := dir.Rename(path, to); err != nil {
				return err
			}
			names = append(names, to)
			return nil
		})
		if err == nil {
			err = dir.Remove(next)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && len(errs) < maxRemoveErrors {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// maxRemoveErrors is how many reasons a failed removal tells.
const maxRemoveErrors = 3

// emptyDir removes what is in a directory in root, and moves its subdirectories away. It leaves
// alone what is no directory.
func emptyDir(root *os.Root, path string, move func(path string) error) error {
	info, err := root.Lstat(path)
	if err != nil || !info.IsDir() {
		return err
	}
	// A command may have taken its own permissions away.
	if info.Mode().Perm()&0o700 != 0o700 {
		if err := root.Chmod(path, 0o700); err != nil {
			return err
		}
	}
	dir, err := root.OpenRoot(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	list, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer list.Close()
	entries, err := list.ReadDir(-1)
	for _, entry := range entries {
		if entry.IsDir() {
			// A directory without the permission to write cannot change its parent.
			_ = dir.Chmod(entry.Name(), 0o700)
			err = errors.Join(err, move(filepath.Join(path, entry.Name())))
		} else {
			err = errors.Join(err, dir.Remove(entry.Name()))
		}
	}
	return err
}
