//go:build !linux

package sqlite

import (
	"errors"
	"os"
)

// syncFile makes a file durable. On macOS, File.Sync also flushes the drive's cache.
func syncFile(f *os.File) error { return f.Sync() }

// syncDir does nothing where a directory cannot be synced.
func syncDir(string) error { return nil }

// asyncSync is not available on this system.
type asyncSync struct{}

var errNotSubmitted = errors.ErrUnsupported

func newAsyncSync(*os.File) (*asyncSync, error) { return nil, errors.ErrUnsupported }
func (*asyncSync) sync() error                  { return errors.ErrUnsupported }
func (*asyncSync) close() error                 { return nil }

// writeZeros writes zeros from one offset to another.
func writeZeros(f *os.File, from, to int64) error {
	_, err := f.WriteAt(make([]byte, to-from), from)
	return err
}
