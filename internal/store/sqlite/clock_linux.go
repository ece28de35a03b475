package sqlite

import (
	"time"

	"golang.org/x/sys/unix"
)

// slept is how long the machine has slept since it was started: by so much the clock that
// goes on in sleep is ahead of the one that does not.
func sleptSinceBoot() time.Duration {
	var monotonic, boottime unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boottime) != nil {
		return 0
	}
	return time.Duration(boottime.Nano() - monotonic.Nano())
}
