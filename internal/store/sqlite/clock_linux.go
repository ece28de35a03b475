package sqlite

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleptSinceBoot returns how long the machine has slept since its boot: CLOCK_BOOTTIME counts
// sleep and CLOCK_MONOTONIC does not.
func sleptSinceBoot() time.Duration {
	var monotonic, boottime unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boottime) != nil {
		return 0
	}
	return time.Duration(boottime.Nano() - monotonic.Nano())
}
