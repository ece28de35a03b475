package server

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// fullDiskAdvice returns the sentences of a start without space on the disk.
func fullDiskAdvice(data, space string) []string {
	return []string{"the disk that holds the data directory " + data + " is full", "free at least " + space + " on it", "--data"}
}

func wantMessages(t *testing.T, err error, sentences ...string) {
	t.Helper()
	for _, s := range sentences {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("the start fails with %v, without %q", err, s)
		}
	}
}

func TestFullDiskErrorNamesSpaceAndDirectory(t *testing.T) {
	t.Parallel()
	for _, full := range []error{
		&fs.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC}, fmt.Errorf("quota: %w", syscall.EDQUOT), errors.Join(store.ErrFull, errors.New("more")),
	} {
		for space, minFree := range map[string]int64{"76 MiB": 64 << 20, "77 MiB": 64<<20 + 1, "12 MiB": 0} {
			err := explainFullDisk(config.Config{Data: "/d", MinFreeBytes: minFree}, full)
			wantMessages(t, err, append(fullDiskAdvice("/d", space), full.Error())...)
			if !errors.Is(err, full) {
				t.Errorf("%v has lost its cause", err)
			}
		}
	}
	for _, other := range []error{nil, fs.ErrPermission} {
		if err := explainFullDisk(config.Config{}, other); err != other {
			t.Errorf("%v became %v", other, err)
		}
	}
}

func TestOpenFailsOnAFullDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{Unsynced: true, MaxPages: 5})
	if err == nil {
		s.Close()
	}
	if !errors.Is(err, store.ErrFull) {
		t.Errorf("opened with %v", err)
	}
	if s, err = sqlite.Open(t.Context(), path, sqlite.Options{Unsynced: true}); err != nil {
		t.Fatalf("with space: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
