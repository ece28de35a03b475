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

// sayWhatToDo are the sentences of a start that finds no room in a directory.
func sayWhatToDo(data, room string) []string {
	return []string{"the disk that holds the data directory " + data + " is full", "make at least " + room + " of room", "--data"}
}

func wantSaid(t *testing.T, err error, sentences ...string) {
	t.Helper()
	for _, s := range sentences {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("the start says %v, without %q", err, s)
		}
	}
}

func TestAStartWithoutRoomSaysHowMuchItNeedsAndWhere(t *testing.T) {
	for _, full := range []error{
		&fs.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC}, fmt.Errorf("quota: %w", syscall.EDQUOT), errors.Join(store.ErrFull, errors.New("more")),
	} {
		for room, minFree := range map[string]int64{"76 MiB": 64 << 20, "77 MiB": 64<<20 + 1, "12 MiB": 0} {
			err := noRoom(config.Config{Data: "/d", MinFreeBytes: minFree}, full)
			wantSaid(t, err, append(sayWhatToDo("/d", room), full.Error())...)
			if !errors.Is(err, full) {
				t.Errorf("%v has lost its cause", err)
			}
		}
	}
	for _, other := range []error{nil, fs.ErrPermission} {
		if err := noRoom(config.Config{}, other); err != other {
			t.Errorf("of %v is said %v", other, err)
		}
	}
}

// A database that has no room to be made tells that by its error.
func TestAStoreWithoutRoomIsNotOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{Unsynced: true, MaxPages: 5})
	if err == nil {
		s.Close()
	}
	if !errors.Is(err, store.ErrFull) {
		t.Errorf("opened with %v", err)
	}
	if s, err = sqlite.Open(t.Context(), path, sqlite.Options{Unsynced: true}); err != nil {
		t.Fatalf("with room: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
