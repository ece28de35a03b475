package bench

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
)

// leanTransport is a cheap HTTP/1.1 transport for one server. The goroutine of the caller
// writes the request and reads the response; net/http uses two more goroutines for each
// connection. A load generator shares its machine with the server, and would otherwise
// measure itself.
//
// It has no TLS, no proxies and no redirects. The context of a request does not end it;
// close does.
type leanTransport struct {
	addr string // set once

	mu     sync.Mutex
	idle   []*leanConn // a stack: the last connection put back is used first
	open   map[*leanConn]bool
	closed bool
}

type leanConn struct {
	net.Conn
	r   *bufio.Reader
	buf []byte // buffer of the request; reused
}

var errClosed = errors.New("the load was stopped")

func newLeanTransport(addr string) *leanTransport {
	return &leanTransport{addr: addr, open: map[*leanConn]bool{}}
}

// RoundTrip sends a request and reads the whole response.
func (l *leanTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	c, err := l.acquire()
	if err != nil {
		return nil, err
	}
	res, err := c.roundTrip(req)
	// After an error the connection may hold the rest of an old response.
	if err != nil || res.Close {
		l.discard(c)
		return res, err
	}
	l.release(c)
	return res, nil
}

func (l *leanTransport) acquire() (*leanConn, error) {
	l.mu.Lock()
	if n := len(l.idle); n > 0 {
		c := l.idle[n-1]
		l.idle = l.idle[:n-1]
		l.mu.Unlock()
		return c, nil
	}
	l.mu.Unlock()
	nc, err := net.Dial("tcp", l.addr)
	if err != nil {
		return nil, err
	}
	c := &leanConn{Conn: nc, r: bufio.NewReaderSize(nc, 4<<10)}
	l.mu.Lock()
	defer l.mu.Unlock()
	// close may have run while this connection was dialed.
	if l.closed {
		_ = nc.Close()
		return nil, errClosed
	}
	l.open[c] = true
	return c, nil
}

func (l *leanTransport) release(c *leanConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle = append(l.idle, c)
}

func (l *leanTransport) discard(c *leanConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
	_ = c.Close()
}

// close closes every connection, so that waiting requests fail.
func (l *leanTransport) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for c := range l.open {
		_ = c.Close()
	}
}

func (c *leanConn) roundTrip(req *http.Request) (*http.Response, error) {
	if err := c.write(req); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(c.r, req)
	if err != nil {
		return nil, err
	}
	body, err := readBody(res)
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, err
}

// write sends the request with one system call.
func (c *leanConn) write(req *http.Request) error {
	b := append(c.buf[:0], req.Method...)
	b = append(append(append(b, ' '), req.URL.RequestURI()...), " HTTP/1.1\r\nHost: "...)
	b = append(b, req.Host...)
	for name, values := range req.Header {
		for _, value := range values {
			b = append(append(append(append(b, "\r\n"...), name...), ": "...), value...)
		}
	}
	if req.Body != nil {
		b = strconv.AppendInt(append(b, "\r\nContent-Length: "...), req.ContentLength, 10)
	}
	b = append(b, "\r\n\r\n"...)
	if req.Body != nil {
		at := len(b)
		b = append(b, make([]byte, req.ContentLength)...)
		if _, err := io.ReadFull(req.Body, b[at:]); err != nil {
			return err
		}
	}
	c.buf = b
	_, err := c.Write(b)
	return err
}

func readBody(res *http.Response) ([]byte, error) {
	defer res.Body.Close()
	if res.ContentLength < 0 {
		return io.ReadAll(res.Body)
	}
	body := make([]byte, res.ContentLength)
	_, err := io.ReadFull(res.Body, body)
	return body, err
}
