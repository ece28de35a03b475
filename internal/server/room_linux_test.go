package server

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// diskAt names, for a test that runs in a namespace of its own, where to mount a disk:
// nobody else sees that.
const diskAt = "MEANWHILE_TEST_DISK_AT"

// onOwnDisk runs a test on a disk of 32 MiB, in a process that may mount one: as root of
// a namespace of its own. Where the system does not allow that, the test is skipped.
func onOwnDisk(t *testing.T, test func(*testing.T, *disk)) {
	if at := os.Getenv(diskAt); at != "" {
		if err := syscall.Mount("none", at, "tmpfs", 0, "size=32m"); err != nil {
			t.Skipf("no disk can be mounted here: %v", err)
		}
		test(t, &disk{at: at, data: filepath.Join(at, "data")})
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), diskAt+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	said, err := cmd.CombinedOutput()
	switch {
	case cmd.Process == nil:
		t.Skipf("no namespace can be made here: %v", err)
	case err != nil:
		t.Fatalf("%v: %s", err, said)
	case bytes.Contains(said, []byte("--- SKIP")):
		t.Skipf("%s", said)
	}
}

// disk is a mounted one, with a data directory on it.
type disk struct{ at, data string }

// leave fills the disk until so many bytes are left.
func (d *disk) leave(t *testing.T, bytes int64) {
	t.Helper()
	d.clear(t)
	var room syscall.Statfs_t
	if err := syscall.Statfs(d.at, &room); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.at, "fill"), make([]byte, int64(room.Bavail)*room.Bsize-bytes), 0o600); err != nil {
		t.Fatal(err)
	}
}

// clear gives back what leave took.
func (d *disk) clear(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(d.at, "fill")); err != nil {
		t.Fatal(err)
	}
}

func (d *disk) remount(t *testing.T, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("none", d.at, "tmpfs", syscall.MS_REMOUNT|flags, ""); err != nil {
		t.Fatal(err)
	}
}

// open opens a server on the disk, and closes it again.
func (d *disk) open(t *testing.T) error {
	cfg := config.Default()
	cfg.Data, cfg.Listen = d.data, ""
	s, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return s.Close()
}

// serve has a server live on the disk.
func (d *disk) serve(t *testing.T) *served {
	return serve(t, func(c *config.Config) { c.Data, c.MinFreeBytes = d.data, 1<<20 })
}

// However little room there is, a first start says what is missing, and leaves nothing
// behind that keeps a later one from succeeding.
func TestAFirstStartOnAFullDisk(t *testing.T) {
	onOwnDisk(t, func(t *testing.T, d *disk) {
		refused := 0
		for left := int64(0); left <= 1<<20; left += 16 << 10 {
			d.leave(t, left)
			err := d.open(t)
			if err == nil {
				break
			}
			refused++
			wantSaid(t, err, sayWhatToDo(d.data, "64 MiB")...)
		}
		if most := 1<<20/(16<<10) + 1; refused == 0 || refused == most {
			t.Errorf("%d starts were refused of %d", refused, most)
		}
	})
}

// Of what was there nothing is harmed.
func TestALaterStartOnAFullDisk(t *testing.T) {
	onOwnDisk(t, func(t *testing.T, d *disk) {
		s := d.serve(t)
		_, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"kept"}}`, "Prefer", "wait=30")
		s.quit()
		for _, left := range []int64{0, 4 << 10, 16 << 10} {
			d.leave(t, left)
			wantSaid(t, d.open(t), sayWhatToDo(d.data, "64 MiB")...)
		}
		d.clear(t)
		again := d.serve(t)
		if _, kept := again.call("GET", "/v1/jobs/"+j["id"].(string), ""); kept["status"] != "succeeded" {
			t.Errorf("the job is %v", kept)
		}
		again.quit()
	})
}

func TestAStartInADirectoryThatCannotBeWritten(t *testing.T) {
	onOwnDisk(t, func(t *testing.T, d *disk) {
		d.remount(t, syscall.MS_RDONLY)
		wantSaid(t, d.open(t), "the data directory "+d.data+" cannot be made", "make it writable", "--data")
		d.remount(t, 0)
		if err := d.open(t); err != nil {
			t.Fatal(err)
		}
		d.remount(t, syscall.MS_RDONLY)
		wantSaid(t, d.open(t), "the data directory "+d.data+" cannot be used", "make it writable", "--data")
		d.remount(t, 0)
		if err := d.open(t); err != nil {
			t.Errorf("writable again: %v", err)
		}
	})
}
