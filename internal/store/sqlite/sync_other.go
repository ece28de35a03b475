//go:build !linux

package sqlite

import (
	"errors"
	"os"
)

// syncFile makes a file durable; on macOS that reaches the medium itself.
func syncFile(f *os.File) error { return f.Sync() }

// syncDir does nothing where a directory cannot be synced.
func syncDir(string) error { return nil }

// asyncSync is not offered here.
type asyncSync struct{}

var errNotSubmitted = errors.ErrUnsupported

func newAsyncSync(*os.File) (*asyncSync, error) { return nil, errors.ErrUnsupported }
func (*asyncSync) sync() error                  { return errors.ErrUnsupported }
func (*asyncSync) close() error                 { return nil }
