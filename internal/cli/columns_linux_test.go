package cli

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestColumnsReadsTerminalWidth(t *testing.T) {
	t.Parallel()
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("cannot open a terminal: %v", err)
	}
	defer tty.Close()
	for _, wide := range []int{132, 50} {
		if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(wide)}); err != nil {
			t.Fatal(err)
		}
		if got := columns(tty); got != wide {
			t.Errorf("a terminal of %d columns is reported as %d wide", wide, got)
		}
	}
}

func TestColumnsOfNoTerminalIsZero(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if got := columns(null); got != 0 {
		t.Errorf("the width is %d, want 0", got)
	}
}
