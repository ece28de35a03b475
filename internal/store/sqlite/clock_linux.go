package sqlite

import (
	"time"

	"golang.org/x/sys/unix"
)

// slept is how long the machine has slept since it was started: by so much the clock that
// goes on in sleep is ahead of the one that does not.
func slept() time.Duration {
	var stands, goes unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &stands) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &goes) != nil {
		return 0
	}
	return time.Duration(goes.Nano() - stands.Nano())
}
