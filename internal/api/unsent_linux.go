package api

import (
	"net"
	"syscall"
)

const (
	tcpNotSentLowAt = 25 // TCP_NOTSENT_LOWAT of tcp(7)
	mostInKernel    = 2 * writePiece
)

// boundUnsent bounds what the kernel holds of an answer that the client has no room for.
// The kernel lets a writer go on only once a third of a connection's buffer is free, and
// that buffer grows to megabytes: a client that reads slowly but steadily would seem to
// take nothing for minutes.
func boundUnsent(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // without it a slow client has less time
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowAt, mostInKernel)
		})
	}
}
