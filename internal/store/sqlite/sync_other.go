//go:build !linux

package sqlite

import "os"

// syncFile makes a file durable; on macOS that reaches the medium itself.
func syncFile(f *os.File) error { return f.Sync() }

// syncDir does nothing where a directory cannot be synced.
func syncDir(string) error { return nil }
