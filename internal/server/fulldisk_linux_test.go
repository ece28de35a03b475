package server

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/files"
)

// diskAt is the variable that tells a test in its own namespace where to mount a disk. No
// other process sees that mount.
const diskAt = "MEANWHILE_TEST_DISK_AT"

// onOwnDisk runs a test on a disk of 32 MiB, in a process that may mount one as root of a new
// namespace. If the system does not allow that, the test is skipped.
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
	output, err := cmd.CombinedOutput()
	switch {
	case cmd.Process == nil:
		t.Skipf("no namespace can be made here: %v", err)
	case err != nil:
		t.Fatalf("%v: %s", err, output)
	case bytes.Contains(output, []byte("--- SKIP")):
		t.Skipf("%s", output)
	}
}

// disk is a mounted disk with a data directory.
type disk struct{ at, data string }

// leave fills the disk until that number of bytes is free.
func (d *disk) leave(t *testing.T, bytes int64) {
	t.Helper()
	d.clear(t)
	var disk syscall.Statfs_t
	if err := syscall.Statfs(d.at, &disk); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.at, "fill"), make([]byte, int64(disk.Bavail)*disk.Bsize-bytes), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fillUp fills the rest of the disk.
func (d *disk) fillUp(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(d.at, "fill"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// clear frees the space that leave and fillUp used.
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

// serve starts a server on the disk.
func (d *disk) serve(t *testing.T) *testServer {
	return serve(t, func(c *config.Config) { c.Data, c.MinFreeBytes = d.data, 1<<20 })
}

// With too little space a first start fails with advice. A later start with space succeeds.
func TestFirstStartOnAFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a disk")
	}
	onOwnDisk(t, func(t *testing.T, d *disk) {
		refused := 0
		for left := int64(0); left <= 1<<20; left += 16 << 10 {
			d.leave(t, left)
			err := d.open(t)
			if err == nil {
				break
			}
			refused++
			wantMessages(t, err, fullDiskAdvice(d.data, "76 MiB")...)
		}
		if most := 1<<20/(16<<10) + 1; refused == 0 || refused == most {
			t.Errorf("%d starts were refused of %d", refused, most)
		}
	})
}

// A server starts in the reserve of the previous one, and its jobs can be read and
// deleted. Without the reserve the start fails with advice and damages nothing.
func TestLaterStartOnAFullDisk(t *testing.T) {
	onlySQLite(t)
	if testing.Short() {
		t.Skip("fills a disk")
	}
	onOwnDisk(t, func(t *testing.T, d *disk) {
		s := d.serve(t)
		_, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"kept"}}`, "Prefer", "wait=30")
		_, other := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"other"}}`, "Prefer", "wait=30")
		s.quit()
		for _, left := range []int64{0, 4 << 10, 16 << 10} {
			d.leave(t, left)
			s := d.serve(t)
			if _, kept := s.call("GET", "/v1/jobs/"+j["id"].(string), ""); kept["status"] != "succeeded" {
				t.Errorf("with %d bytes left the job is %v", left, kept)
			}
			if status, _ := s.text("DELETE", "/v1/jobs/"+other["id"].(string), ""); status != 204 {
				t.Errorf("with %d bytes left a delete is answered %d", left, status)
			}
			s.quit()
		}
		d.clear(t)
		s = d.serve(t)
		s.quit()
		if err := os.Remove(filepath.Join(d.data, "meanwhile.db-reserve")); err != nil {
			t.Fatal(err)
		}
		d.leave(t, 0)
		wantMessages(t, d.open(t), fullDiskAdvice(d.data, "76 MiB")...)
		d.clear(t)
		again := d.serve(t)
		if _, kept := again.call("GET", "/v1/jobs/"+j["id"].(string), ""); kept["status"] != "succeeded" {
			t.Errorf("the job is %v", kept)
		}
		again.quit()
	})
}

// fill submits jobs of 200 KB until the disk has no space for another.
func (d *disk) fill(t *testing.T, s *testServer) (ids []string) {
	t.Helper()
	body := `{"queue":"work","input":"` + strings.Repeat("x", 200_000) + `"}`
	for {
		status, j := s.call("POST", "/v1/jobs", body)
		if status != 202 {
			if j["code"] != "no_space" || len(ids) < 10 {
				t.Fatalf("after %d jobs a submit is answered %d %v", len(ids), status, j["code"])
			}
			return ids
		}
		ids = append(ids, j["id"].(string))
	}
}

// serveWork starts a server on the disk with a queue of cancelIgnorer.
func (d *disk) serveWork(t *testing.T, k cancelIgnorer) *testServer {
	return serveCancelIgnorer(t, k, func(c *config.Config) { c.Data, c.MinFreeBytes = d.data, 1<<20 })
}

// takesAgain waits until a server whose disk was full accepts a submit.
func takesAgain(t *testing.T, s *testServer) {
	t.Helper()
	for began := time.Now(); time.Since(began) < time.Minute; {
		if status, _ := s.call("POST", "/v1/jobs", `{"queue":"work","input":"`+strings.Repeat("x", 200_000)+`"}`); status == 202 {
			return
		}
	}
	t.Fatal("after a minute submits are refused, although jobs were deleted")
}

// Submits are refused before they fill the disk, no job is lost, and deletes free space.
func TestJobsDoNotFillTheDisk(t *testing.T) {
	onlySQLite(t)
	if testing.Short() {
		t.Skip("fills a disk")
	}
	onOwnDisk(t, func(t *testing.T, d *disk) {
		s := d.serveWork(t, cancelIgnorer{})
		ids := d.fill(t, s)
		if free, _ := files.Free(d.at); free < 1<<20 {
			t.Errorf("%d bytes are left on the disk", free)
		}
		for _, id := range ids {
			if status, _ := s.call("GET", "/v1/jobs/"+id, ""); status != 200 {
				t.Fatalf("the job %s is answered %d", id, status)
			}
		}
		if _, count := s.call("POST", "/v1/jobs/delete", `{"queue":"work"}`); count["done"] != float64(len(ids)) {
			t.Errorf("of %d jobs were deleted: %v", len(ids), count)
		}
		takesAgain(t, s)
		s.quit()
	})
}

// Other programs fill the disk to its last byte. A running job still ends, jobs can be
// cancelled and deleted, /readyz reports the full disk, the server stops in the usual
// order, and a start on the same disk succeeds.
func TestDiskThatOtherProgramsFill(t *testing.T) {
	onlySQLite(t)
	if testing.Short() {
		t.Skip("it runs jobs on a disk of its own for seconds")
	}
	onOwnDisk(t, func(t *testing.T, d *disk) {
		k := cancelIgnorer{make(chan struct{})}
		s := d.serveWork(t, k)
		_, runs := s.call("POST", "/v1/jobs", `{"queue":"work","input":"ignore"}`)
		_, waits := s.call("POST", "/v1/jobs", `{"queue":"work","input":1}`)
		ids := d.fill(t, s)
		d.fillUp(t)
		if status, j := s.call("POST", "/v1/jobs/"+waits["id"].(string)+"/cancel", ""); status != 200 || j["status"] != "cancelled" {
			t.Errorf("a cancel is answered %d %v", status, j)
		}
		for _, id := range ids[:5] {
			if status, _ := s.text("DELETE", "/v1/jobs/"+id, ""); status != 204 {
				t.Errorf("a delete is answered %d", status)
			}
		}
		d.fillUp(t)
		for began, full := time.Now(), false; !full; { // the server reads the free space each second
			status, text := s.text("GET", "/readyz", "")
			full = status == 200 && strings.Contains(text, "the disk is full")
			if time.Since(began) > time.Minute {
				t.Fatalf("/readyz says %d %q", status, text)
			}
		}
		if status, j := s.call("POST", "/v1/jobs", `{"queue":"work","input":1}`); status != 503 || j["code"] != "no_space" {
			t.Errorf("a submit is answered %d %v", status, j)
		}
		close(k.release)
		if _, j := s.call("GET", "/v1/jobs/"+runs["id"].(string), "", "Prefer", "wait=30"); j["status"] != "succeeded" {
			t.Errorf("the running job is %v", j)
		}
		s.quit()
		d.fillUp(t)
		s = d.serveWork(t, cancelIgnorer{})
		if _, count := s.call("POST", "/v1/jobs/delete", `{"queue":"work"}`); count["done"] == 0.0 || count["more"] != nil {
			t.Errorf("jobs were deleted: %v", count)
		}
		takesAgain(t, s)
		s.quit()
	})
}

func TestStartInAnUnwritableDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("starts several servers")
	}
	onOwnDisk(t, func(t *testing.T, d *disk) {
		d.remount(t, syscall.MS_RDONLY)
		wantMessages(t, d.open(t), "the data directory "+d.data+" cannot be made", "make it writable", "--data")
		d.remount(t, 0)
		if err := d.open(t); err != nil {
			t.Fatal(err)
		}
		d.remount(t, syscall.MS_RDONLY)
		wantMessages(t, d.open(t), "the data directory "+d.data+" cannot be used", "make it writable", "--data")
		d.remount(t, 0)
		if err := d.open(t); err != nil {
			t.Errorf("writable again: %v", err)
		}
	})
}
