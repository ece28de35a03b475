package api

import (
	"net"
	"syscall"
)

const (
	tcpNotSentLowAt = 25 // TCP_NOTSENT_LOWAT of tcp(7)
	maxUnsent       = 2 * writePiece
)

// boundUnsent limits how many unsent bytes the kernel buffers for a connection.
//
// Without the limit the buffer grows to megabytes, and the kernel wakes the writer only
// once a third of it is free. A client that reads slowly but steadily would then seem to
// read nothing for minutes, and run into its deadline.
func boundUnsent(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // without the limit a slow client only has less time
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowAt, maxUnsent)
		})
	}
}
