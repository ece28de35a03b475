package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// dataDir is a data directory that this process holds: no other server may use it
// until release, or until this process ends, however it ends.
type dataDir struct {
	path string
	lock *os.File
}

// openData makes the directory when it is missing and takes its lock. The lock
// belongs to the process, so that a kill -9 leaves nothing to clean up; the pid in
// the lock file is for people.
func openData(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("the data directory cannot be made: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data directory cannot be used: %w", err)
	}
	d := &dataDir{path: path, lock: lock}
	if err := d.take(); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

func (d *dataDir) take() error {
	err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("another server (pid %s) uses the data directory %s: stop it, or give this one another data directory (--data)", d.holder(), d.path)
	}
	if err != nil {
		return fmt.Errorf("the data directory %s cannot be locked: %w", d.path, err)
	}
	if err := d.lock.Truncate(0); err != nil {
		return fmt.Errorf("the lock of the data directory cannot be written: %w", err)
	}
	_, err = d.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

// holder reads the pid that the holder of the lock left.
func (d *dataDir) holder() string {
	text, _ := io.ReadAll(io.NewSectionReader(d.lock, 0, 32))
	if pid := strings.TrimSpace(string(text)); pid != "" {
		return pid
	}
	return "unknown"
}

// database is the path of the store's file.
func (d *dataDir) database() string { return filepath.Join(d.path, "meanwhile.db") }

// files is where the files of jobs lie.
func (d *dataDir) files() string { return filepath.Join(d.path, "files") }

// release lets another server use the directory.
func (d *dataDir) release() error { return d.lock.Close() }
