package api

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// The kernel buffers few unsent bytes, so that the writer continues as soon as the client
// reads.
func TestKernelBuffersFewUnsentBytes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := Timeouts{Write: 200 * time.Millisecond}.BoundListener(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n, err := conn.Write(make([]byte, 64<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n > 1<<20 {
		t.Errorf("%d bytes were taken, %v", n, err)
	}
}
