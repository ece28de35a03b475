//go:build unix

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// columns returns the current width of the terminal f; 0 when f is not a terminal or its
// width is unknown.
func columns(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
