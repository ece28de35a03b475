package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// writePiece is how many bytes of a response a client must accept within [Timeouts.Write].
const writePiece = 64 << 10

// BoundListener sets a write deadline on every connection of a listener. A client has
// [Timeouts.Write] for each 64 KiB of a write; after that the connection breaks. So a
// response may last for as long as the client keeps reading it.
func (t Timeouts) BoundListener(l net.Listener) net.Listener { return boundListener{l, t.write()} }

type boundListener struct {
	net.Listener
	timeout time.Duration
}

func (l boundListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &boundConn{Conn: c, deadline: newWriteDeadline(l.timeout)}, nil
}

// boundConn is a connection whose writes have deadlines.
type boundConn struct {
	net.Conn
	deadline writeDeadline
	long     atomic.Bool // a long write was made, so the kernel's send buffer is bounded
}

// longWrite is the length of the shortest write, in bytes, that bounds the kernel's send
// buffer. The bound makes the kernel wake the writer more often, so connections with short
// responses go without it.
const longWrite = 16 << 10

func (c *boundConn) Write(p []byte) (int, error) {
	if len(p) >= longWrite && c.long.CompareAndSwap(false, true) {
		boundUnsent(c.Conn)
	}
	return c.deadline.write(c.Conn, c.Conn, p)
}

// SetWriteDeadline sets the deadline of a hijacked connection. It holds until the next write.
func (c *boundConn) SetWriteDeadline(t time.Time) error {
	c.deadline.reset()
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline is like SetWriteDeadline, for reads too.
func (c *boundConn) SetDeadline(t time.Time) error {
	c.deadline.reset()
	return c.Conn.SetDeadline(t)
}

// CloseWrite closes the sending side. [http.Server] calls it to end a connection whose
// client still sends.
func (c *boundConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

type directKey struct{}

// WithDirect marks the requests of a server that this program runs itself; use it in
// [http.Server.BaseContext]. The mark promises two things. The connections come from a
// [Timeouts.BoundListener]. And a response may outlast its handler: no middleware in front
// of the gate compresses responses or counts requests in progress.
func WithDirect(ctx context.Context) context.Context {
	return context.WithValue(ctx, directKey{}, true)
}

// IsDirect reports whether [WithDirect] marked the request.
func IsDirect(r *http.Request) bool { return r.Context().Value(directKey{}) != nil }

// BoundResponses sets write deadlines on the responses of a handler that runs in another
// program's server, and on those of HTTP/2: there a client may read one response and stop reading
// another. It leaves the other requests marked by [WithDirect] alone: [Timeouts.BoundListener]
// bounds them already.
func (t Timeouts) BoundResponses(next http.Handler) http.Handler {
	timeout := t.write()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if IsDirect(r) && r.ProtoMajor == 1 {
			next.ServeHTTP(w, r)
			return
		}
		b := &boundResponse{ResponseWriter: w, ctrl: http.NewResponseController(w), deadline: newWriteDeadline(timeout)}
		defer func() {
			// The next request on the connection may go to another handler.
			if b.deadline.set.Load() != 0 {
				_ = b.ctrl.SetWriteDeadline(time.Time{})
			}
		}()
		next.ServeHTTP(b, r)
		// A response that is longer than the buffers of net/http ends with bytes that are still
		// buffered. Without a flush they would be sent after the deadline was cleared.
		if b.written >= longBody {
			_ = b.FlushError() // an error means that the client has left
		}
	})
}

// boundResponse is a response whose writes have deadlines. One goroutine uses it.
type boundResponse struct {
	http.ResponseWriter
	ctrl     *http.ResponseController
	deadline writeDeadline
	written  int // bytes
}

func (b *boundResponse) Write(p []byte) (int, error) {
	n, err := b.deadline.write(b.ResponseWriter, b.ctrl, p)
	b.written += n
	return n, err
}

// FlushError sends the bytes that were written.
func (b *boundResponse) FlushError() error {
	if err := b.deadline.extend(b.ctrl); err != nil {
		return err
	}
	return b.ctrl.Flush()
}

// Unwrap lets an [http.ResponseController] reach the connection.
func (b *boundResponse) Unwrap() http.ResponseWriter { return b.ResponseWriter }

// RecordRoute passes the pattern on to the writer below.
func (b *boundResponse) RecordRoute(pattern string) {
	if to, ok := b.ResponseWriter.(RouteRecorder); ok {
		to.RecordRoute(pattern)
	}
}

// writeDeadline moves the write deadline of a connection. It is safe for concurrent use.
type writeDeadline struct {
	timeout time.Duration // set once
	began   time.Time     // set once
	set     atomic.Int64  // when the deadline was last moved, in nanoseconds after began; 0: it is not set
}

func newWriteDeadline(timeout time.Duration) writeDeadline {
	// One nanosecond earlier, so that set is never 0 by accident.
	return writeDeadline{timeout: timeout, began: time.Now().Add(-1)}
}

// write writes p in pieces and extends the deadline before each one.
func (d *writeDeadline) write(to interface{ Write([]byte) (int, error) }, conn deadlineSetter, p []byte) (int, error) {
	for done := 0; ; {
		if err := d.extend(conn); err != nil {
			return done, err
		}
		n, err := to.Write(p[done:min(done+writePiece, len(p))])
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

// deadlineSetter is a connection or an [http.ResponseController].
type deadlineSetter interface{ SetWriteDeadline(time.Time) error }

// extend sets the deadline to the timeout from now. A connection without deadlines (one
// inside this program) is no error.
func (d *writeDeadline) extend(conn deadlineSetter) error {
	now := time.Now()
	at := int64(now.Sub(d.began))
	// Setting the deadline costs as much as sending a short event. So a deadline that was
	// set less than a sixth of the timeout ago stays.
	if set := d.set.Load(); set != 0 && time.Duration(at-set) < d.timeout/6 {
		return nil
	}
	d.set.Store(at)
	if err := conn.SetWriteDeadline(now.Add(d.timeout)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// reset makes the next write set the deadline again.
func (d *writeDeadline) reset() { d.set.Store(0) }
