package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// writePiece is how many bytes of an answer a client is to take within [Timeouts.Write].
const writePiece = 64 << 10

// Listener bounds every write to the connections of a listener: whatever it is of, the
// client has [Timeouts.Write] for each piece of it, or the connection breaks. So an
// answer may last as long as it goes on being read.
func (t Timeouts) BoundListener(l net.Listener) net.Listener { return boundListener{l, t.write()} }

type boundListener struct {
	net.Listener
	wait time.Duration
}

func (l boundListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &boundConn{Conn: c, clock: newClock(l.wait)}, nil
}

// boundConn is a connection of which every write has its time.
type boundConn struct {
	net.Conn
	clock writeClock
	long  atomic.Bool // it was given a long write
}

// longWrite is how many bytes at once are worth a bound on what the kernel holds unsent.
// The bound makes the kernel wake the writer more often, so connections with short answers
// go without.
const longWrite = 16 << 10

func (c *boundConn) Write(p []byte) (int, error) {
	if len(p) >= longWrite && c.long.CompareAndSwap(false, true) {
		boundUnsent(c.Conn)
	}
	return c.clock.write(c.Conn, c.Conn, p)
}

// SetWriteDeadline is of whoever took the connection over. It counts until the next
// write.
func (c *boundConn) SetWriteDeadline(t time.Time) error {
	c.clock.forget()
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline is as SetWriteDeadline.
func (c *boundConn) SetDeadline(t time.Time) error {
	c.clock.forget()
	return c.Conn.SetDeadline(t)
}

// CloseWrite is how [http.Server] ends a connection whose client still sends.
func (c *boundConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

type directKey struct{}

// Direct marks the requests of a server of our own: its connections are those of a
// [Timeouts.Listener], and no middleware in front of the gate minds an answer that
// outlasts its handler (no compression, no count of requests under way). It is for
// [http.Server.BaseContext].
func WithDirect(ctx context.Context) context.Context {
	return context.WithValue(ctx, directKey{}, true)
}

// IsDirect says whether a request was marked by [Direct].
func IsDirect(r *http.Request) bool { return r.Context().Value(directKey{}) != nil }

// BoundAnswers bounds the answers of a handler whose connections are another server's,
// as [Timeouts.Listener] bounds those of our own, which are not bounded twice.
func (t Timeouts) BoundResponses(next http.Handler) http.Handler {
	wait := t.write()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if IsDirect(r) {
			next.ServeHTTP(w, r)
			return
		}
		a := &boundAnswer{ResponseWriter: w, ctrl: http.NewResponseController(w), clock: newClock(wait)}
		defer a.release()
		next.ServeHTTP(a, r)
		a.flushLong()
	})
}

// boundAnswer is an answer of which every write has its time. It is used by one
// goroutine.
type boundAnswer struct {
	http.ResponseWriter
	ctrl  *http.ResponseController
	clock writeClock
	wrote int
}

func (a *boundAnswer) Write(p []byte) (int, error) {
	n, err := a.clock.write(a.ResponseWriter, a.ctrl, p)
	a.wrote += n
	return n, err
}

// FlushError sends what was written.
func (a *boundAnswer) FlushError() error {
	if err := a.clock.extend(a.ctrl); err != nil {
		return err
	}
	return a.ctrl.Flush()
}

// flushLong sends the end of an answer that is longer than the buffers of [http.Server],
// which would send it once the deadline is off.
func (a *boundAnswer) flushLong() {
	if a.wrote >= longBody {
		_ = a.FlushError() // a client that is gone needs no answer
	}
}

// release takes the deadline off: what comes next on the connection may be another
// handler's.
func (a *boundAnswer) release() {
	if a.clock.running() {
		_ = a.ctrl.SetWriteDeadline(time.Time{})
	}
}

// Unwrap lets an [http.ResponseController] reach the connection.
func (a *boundAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Routed passes on which pattern took the request.
func (a *boundAnswer) RecordRoute(pattern string) {
	if to, ok := a.ResponseWriter.(RouteRecorder); ok {
		to.RecordRoute(pattern)
	}
}

// writeClock moves a connection's write deadline. Several goroutines may use it.
type writeClock struct {
	wait  time.Duration // set once
	began time.Time     // set once
	set   atomic.Int64  // when the deadline was last moved, in nanoseconds after began; 0: never
}

func newClock(wait time.Duration) writeClock {
	return writeClock{wait: wait, began: time.Now().Add(-1)} // so that no moment is 0
}

// write writes all of p or says why not, and gives the client its time for each piece.
func (c *writeClock) write(to interface{ Write([]byte) (int, error) }, conn deadlined, p []byte) (int, error) {
	for done := 0; ; {
		if err := c.extend(conn); err != nil {
			return done, err
		}
		n, err := to.Write(p[done:min(done+writePiece, len(p))])
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

// deadlined is what has a write deadline.
type deadlined interface{ SetWriteDeadline(time.Time) error }

// extend gives the client its time for a piece, or up to a sixth less: to move the
// deadline for every word of a stream would cost as much as the word. A connection
// without a clock (one inside a program) needs none.
func (c *writeClock) extend(conn deadlined) error {
	now := time.Now()
	at := int64(now.Sub(c.began))
	if set := c.set.Load(); set != 0 && time.Duration(at-set) < c.wait/6 {
		return nil
	}
	c.set.Store(at)
	if err := conn.SetWriteDeadline(now.Add(c.wait)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// forget has the next write set the deadline.
func (c *writeClock) forget() { c.set.Store(0) }

// running says whether a deadline was set.
func (c *writeClock) running() bool { return c.set.Load() != 0 }
