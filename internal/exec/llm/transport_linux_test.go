package llm

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wantedSocketOptions are the options of a connection to a model's server, at the level of TCP.
var wantedSocketOptions = map[int]int{
	unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 5, unix.TCP_KEEPCNT: 3,
	unix.TCP_USER_TIMEOUT: int(unacknowledgedLimit / time.Millisecond),
}

func socketOption(t *testing.T, conn net.Conn, name int) (value int) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { value, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, name) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return value
}
