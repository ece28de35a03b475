package server

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// smallTablespace makes a tablespace on a disk of its own, of 64 MiB. It skips the test where no disk
// can be mounted.
func smallTablespace(t *testing.T, name string) (at string) {
	t.Helper()
	server := pgtest.Shared(t)
	at, err := os.MkdirTemp("", "meanwhile-tablespace-")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", at, "tmpfs", 0, "size=64m,mode=0755"); err != nil {
		_ = os.Remove(at)
		t.Skipf("no disk can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(syscall.Unmount(at, 0), os.Remove(at)); err != nil {
			t.Error(err)
		}
	})
	var owner syscall.Stat_t
	place := filepath.Join(at, "place")
	err = errors.Join(syscall.Stat(server.Dir(), &owner), os.Mkdir(place, 0o700), os.Chown(place, int(owner.Uid), int(owner.Gid)))
	if err != nil {
		t.Fatal(err)
	}
	server.Exec(t, "create tablespace "+name+" location '"+place+"'")
	t.Cleanup(func() { server.Exec(t, "drop tablespace "+name) })
	return at
}

// The disk of the database is full to its last byte: submits are refused meanwhile, running work goes
// on, and nothing needs a restart when there is space again.
func TestServerOutlivesFullDiskOfDatabase(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("fills a disk")
	}
	at := smallTablespace(t, "small")
	r := newInTrouble(t, 1, nil)
	r.exec("grant create on tablespace small to ROLE; alter role ROLE set default_tablespace = small") // of later partitions
	for _, kind := range []string{"table", "index"} {
		r.exec("alter " + kind + " all in tablespace pg_default owned by ROLE set tablespace small")
	}
	r.outlives(func() (end func()) {
		fill := filepath.Join(at, "fill")
		f, err := os.Create(fill)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		for err == nil {
			_, err = f.Write(make([]byte, 4<<10))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		return func() {
			if err := os.Remove(fill); err != nil {
				t.Error(err)
			}
		}
	})
}
