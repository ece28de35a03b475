package llm

import (
	"context"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged makes the kernel close a connection whose data nobody acknowledges.
// Keep-alive probes do not cover this: they are sent only while nothing else waits to be.
func limitUnacknowledged(_ context.Context, _, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// A kernel without the option keeps its own limit of many minutes.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledgedLimit/time.Millisecond))
	})
}
