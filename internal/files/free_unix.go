//go:build linux || darwin

package files

import "syscall"

// Free returns the bytes of the disk under a directory that this process may still write.
func Free(path string) (free int64, known bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
