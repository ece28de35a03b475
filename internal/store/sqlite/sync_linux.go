package sqlite

import (
	"os"
	"path/filepath"
	"syscall"
)

// syncFile makes a file's data durable, and of its metadata what reading it back
// takes: fdatasync(2).
func syncFile(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return err
		}
	}
}

// syncDir makes the names of the database's files durable.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}
