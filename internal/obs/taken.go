package obs

import (
	"net"
	"sync/atomic"
)

// taken is a connection that was taken over from net/http. Its answer is over when
// the handler has returned and the connection is closed.
type taken struct {
	net.Conn
	closed atomic.Bool
	left   atomic.Int32 // of the two
	over   func()       // set before the handler is counted as returned
}

func newTaken(conn net.Conn) *taken {
	t := &taken{Conn: conn}
	t.left.Store(2)
	return t
}

// returned is called once, with what is to be done when the answer is over.
func (t *taken) returned(over func()) {
	t.over = over
	t.one()
}

// Close closes the connection. It may be called again.
func (t *taken) Close() error {
	if t.closed.CompareAndSwap(false, true) {
		defer t.one()
	}
	return t.Conn.Close()
}

func (t *taken) one() {
	if t.left.Add(-1) == 0 {
		t.over()
	}
}
