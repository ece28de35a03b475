package telemetry

import (
	"net"
	"sync/atomic"
)

// hijackedConn is a connection that a handler took over from net/http. Its response has
// ended when the handler has returned and the connection is closed, in either order.
type hijackedConn struct {
	net.Conn
	closed  atomic.Bool
	pending atomic.Int32 // how many of the two have not happened yet
	ended   func()       // set by handlerReturned, before it decrements pending
}

func newHijackedConn(conn net.Conn) *hijackedConn {
	c := &hijackedConn{Conn: conn}
	c.pending.Store(2)
	return c
}

// handlerReturned is called once. ended runs when the response has ended.
func (c *hijackedConn) handlerReturned(ended func()) {
	c.ended = ended
	c.release()
}

// Close closes the connection. It may be called again.
func (c *hijackedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		defer c.release()
	}
	return c.Conn.Close()
}

func (c *hijackedConn) release() {
	if c.pending.Add(-1) == 0 {
		c.ended()
	}
}
