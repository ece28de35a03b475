package telemetry

import (
	"net"
	"sync/atomic"
)

// hijackedConn is a connection that was hijackedConn over from net/http. Its answer is over when
// the handler has returned and the connection is closed.
type hijackedConn struct {
	net.Conn
	closed  atomic.Bool
	pending atomic.Int32 // of the two
	done    func()       // set before the handler is counted as returned
}

func newHijackedConn(conn net.Conn) *hijackedConn {
	t := &hijackedConn{Conn: conn}
	t.pending.Store(2)
	return t
}

// handlerReturned is called once, with what is to be done when the answer is over.
func (t *hijackedConn) handlerReturned(over func()) {
	t.done = over
	t.release()
}

// Close closes the connection. It may be called again.
func (t *hijackedConn) Close() error {
	if t.closed.CompareAndSwap(false, true) {
		defer t.release()
	}
	return t.Conn.Close()
}

func (t *hijackedConn) release() {
	if t.pending.Add(-1) == 0 {
		t.done()
	}
}
