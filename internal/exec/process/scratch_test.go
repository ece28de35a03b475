//go:build unix

package process

import (
	"errors"
	"log/slog"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// newScratchShell returns an executor that runs scripts, and the directory of their scratch
// directories.
func newScratchShell(t *testing.T) (e *Executor, root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "tmp")
	e, err := New(Config{Command: []string{"sh"}, Env: []string{"TMPDIR"}, Scratch: root})
	if err != nil {
		t.Fatal(err)
	}
	return e, root
}

func entriesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Each attempt has a directory of its own in TMPDIR, whatever the end of the attempt, and nothing
// of it stays.
func TestScratchDirectoryIsRemoved(t *testing.T) {
	t.Parallel()
	e, root := newScratchShell(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	fill := `cd "$TMPDIR" && mkdir -p a/b && echo x > a/b/c && ln -s ` + outside + ` link && chmod 0 a/b a && mkfifo pipe && `
	seen := map[string]bool{}
	for _, end := range []string{`pwd`, `pwd; exit 3`, `pwd; kill -9 $$`, `pwd; cd /; rm -rf "$TMPDIR" 2>&-`} {
		a := exectest.Start(t, e, exectest.Task([]byte(fill+end)))
		_ = a.Wait()
		dir := strings.TrimSpace(a.Sink.Record().Text())
		if !strings.HasPrefix(dir, root+"/") || seen[dir] {
			t.Errorf("the scratch directory is %q", dir)
		}
		seen[dir] = true
	}
	a := exectest.Start(t, e, exectest.Task([]byte(fill+`echo ready; exec sleep 1000`)))
	a.Sink.WaitUntil(exectest.HasText)
	a.Stop(exec.ErrCancelled)
	_ = a.Wait()
	if left := entriesIn(t, root); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

// Directories nested deeper than the server may have files open are removed, and those that their
// owner may not enter.
func TestDeepScratchIsRemoved(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	parent, err := syscall.Open(root, syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	name, perm := strings.Repeat("d", 100), uint32(0o700)
	for range 200 { // deeper than a path may be long
		if err := unix.Mkdirat(parent, name, 0o700); err != nil {
			t.Fatal(err)
		}
		child, err := unix.Openat(parent, name, syscall.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Fchmod(parent, perm); err != nil {
			t.Fatal(err)
		}
		perm = 0o100
		_ = syscall.Close(parent)
		parent = child
	}
	_ = syscall.Close(parent)
	out, err := osexec.Command("sh", "-c", `ulimit -n 40; exec "$0" remove-tree "$1" "$2"`, os.Args[0], root, name).CombinedOutput()
	if left := entriesIn(t, root); err != nil || len(left) > 0 {
		t.Errorf("%v, %.300s, %q is left", err, out, left)
	}
}

// The next server removes what a killed server left, and nothing else.
func TestScratchOfAKilledServerIsRemoved(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, dir := range []string{scratchPrefix + "one/a/b", scratchPrefix + "two", "other/x"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	RemoveScratch(link, slog.New(slog.DiscardHandler)) // another user's link is not followed
	if left := entriesIn(t, root); len(left) != 3 {
		t.Errorf("through a link, %q is left", left)
	}
	RemoveScratch(root, slog.New(slog.DiscardHandler))
	if left := entriesIn(t, root); len(left) != 1 || left[0] != "other" {
		t.Errorf("%q is left", left)
	}
	RemoveScratch(filepath.Join(root, "missing"), slog.New(slog.DiscardHandler))
}

// Without a scratch directory the command is not run, and the job may be tried again.
func TestCommandIsNotRunWithoutScratch(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(root, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := New(Config{Command: []string{"true"}, Scratch: root})
	if err != nil {
		t.Fatal(err)
	}
	f := runFailing(t, e, "")
	if f.Code != "command_not_started" || f.Class != job.Retryable || !strings.Contains(f.Message, "scratch directory cannot be made") {
		t.Errorf("the fault is %+v", f)
	}
}

// A file of the job that is no longer what came with it is not given to the next attempt.
func TestChangedFilesFailTheJob(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("in a.txt"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]string{
		"a link in its place":      `ln -sf ` + secret + ` "$MEANWHILE_FILE_1"`,
		"a named pipe":             `rm "$MEANWHILE_FILE_1"; mkfifo "$MEANWHILE_FILE_1"`,
		"another size":             `echo more >> "$MEANWHILE_FILE_1"`,
		"none":                     `rm "$MEANWHILE_FILE_1"`,
		"a link for its directory": `d=$(dirname "$MEANWHILE_FILE_1"); mv "$d" "$d.old"; ln -s "$d.old" "$d"`,
	} {
		task := exectest.Task(nil)
		dir := filepath.Join(t.TempDir(), "job")
		path := filepath.Join(dir, "a.txt")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(path, []byte("in a.txt"), 0o600)); err != nil {
			t.Fatal(err)
		}
		task.Files = []exec.File{{Path: path, File: job.File{Name: "a.txt", Size: 8}}}
		e := newShell(t)
		task.Input = []byte(change + "; exit 1")
		_ = exectest.Start(t, e, task).Wait()
		var f *job.Fault
		if err := exectest.Start(t, e, task).Wait(); !errors.As(err, &f) || f.Code != "files_changed" || f.Class != job.Final {
			t.Errorf("with %s the next attempt ended with %v", name, err)
		}
	}
}
