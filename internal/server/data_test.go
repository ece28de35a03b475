package server

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

func TestDataDirectoryIsPrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := openData(path, wholeLayout)
	if err != nil {
		t.Fatal(err)
	}
	defer d.release()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// Only the server's user can read the database, also in a directory that others may enter.
func TestNewDatabaseIsPrivate(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	h, err := open(t.Context(), config.Config{Data: path}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	for _, name := range []string{"meanwhile.db", "meanwhile.db-wal", "watch.key", "version", "lock"} {
		info, err := os.Stat(filepath.Join(path, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// The lock has the pid of the server that uses the directory, and none once it has stopped.
func TestLockHasPIDOfRunningServer(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	lock := filepath.Join(path, lockFile)
	if err := os.WriteFile(lock, []byte("4194304123\n"), 0o600); err != nil { // of a server that was killed
		t.Fatal(err)
	}
	d, err := openData(path, wholeLayout)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(lock); err != nil || string(text) != fmt.Sprintf("%d\n", os.Getpid()) {
		t.Errorf("while it runs the lock has %q (%v)", text, err)
	}
	if err := d.release(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(lock); err != nil || len(text) > 0 {
		t.Errorf("after the stop the lock has %q (%v)", text, err)
	}
}

// A directory with other programs' files is not changed.
func TestForeignDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rule  string
		names []string
		ours  bool
	}{
		{"an empty one is new", nil, true},
		{"a checkout", []string{"README.md", ".git"}, false},
		{"a site with files of its own", []string{"files", "index.php"}, false},
		{"a start that was broken off", []string{"lock", "version.new", "watch.key", "files"}, true},
		{"the root of a disk", []string{"lost+found", ".keep"}, true},
		{"a configuration and a log beside the data", []string{"meanwhile.yaml", "meanwhile.log"}, true},
		{"a directory of ours with a note in it", []string{"version", "README.txt"}, true},
		{"one from before there were numbers", []string{"meanwhile.db", "notes"}, true},
	} {
		path := t.TempDir()
		for _, name := range tt.names {
			if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := checkOwned(path)
		if (err == nil) != tt.ours {
			t.Errorf("%s: %v", tt.rule, err)
		}
		if !tt.ours {
			if _, err := openData(path, wholeLayout); err == nil || !strings.Contains(err.Error(), "one of its own") {
				t.Errorf("%s: %v", tt.rule, err)
			}
			if left, _ := os.ReadDir(path); len(left) != len(tt.names) {
				t.Errorf("%s: something was left in it: %v", tt.rule, left)
			}
		}
	}
}

func TestSecondServerIsRefusedWithThePidOfTheFirst(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	first, err := openData(path, wholeLayout)
	if err != nil {
		t.Fatal(err)
	}
	_, err = openData(path, wholeLayout)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another server (pid %d)", os.Getpid())) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if err := first.release(); err != nil {
		t.Fatal(err)
	}
	again, err := openData(path, wholeLayout)
	if err != nil {
		t.Fatalf("released, and still held: %v", err)
	}
	again.release()
}

func TestDataDirectoryThatIsAFileIsRefused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openData(file, wholeLayout); err == nil || !strings.Contains(err.Error(), "data directory") {
		t.Error(err)
	}
}

// A directory with jobs is no cache of a server with a database, which would remove their files.
// A cache has no jobs, so a server without a database would begin with none.
func TestDirectoryOfJobsAndCacheAreNotMixedUp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		made, used layout
		want       string
	}{
		{wholeLayout, cacheLayout, "holds the jobs of a server without a PostgreSQL database"},
		{cacheLayout, wholeLayout, "is only a cache"},
		{cacheLayout, cacheLayout, ""},
		{wholeLayout, wholeLayout, ""},
	} {
		path := t.TempDir()
		d, err := openData(path, tt.made)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.release(); err != nil {
			t.Fatal(err)
		}
		d, err = openData(path, tt.used)
		if err == nil {
			d.release()
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s used as %s: %v", tt.made, tt.used, err)
		}
		_, err = os.Stat(databaseIn(path))
		if whole := err == nil; whole != (tt.made == wholeLayout) {
			t.Errorf("a directory made as %s has a SQLite database: %v", tt.made, whole)
		}
		if tt.made == cacheLayout {
			if _, err := Backup(t.Context(), path, filepath.Join(t.TempDir(), "copy"), nil); err == nil || !strings.Contains(err.Error(), "PostgreSQL's own tools") {
				t.Errorf("a backup of a cache: %v", err)
			}
		}
	}
	old := t.TempDir() // from before there were layouts
	if err := os.WriteFile(databaseIn(old), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openData(old, cacheLayout); err == nil || !strings.Contains(err.Error(), "holds the jobs") {
		t.Errorf("%v", err)
	}
}
