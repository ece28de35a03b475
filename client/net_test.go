package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
)

// network is an in-memory network with one server. Tests with it run in a synctest bubble:
// a goroutine that waits for a pipe is durably blocked, so that the fake clock advances.
type network struct {
	t *testing.T

	mu    sync.Mutex
	ln    *pipeListener // nil while no server is up
	conns map[net.Conn]bool
}

// withNetwork runs f with a network and a client on it, in a bubble with a fake clock.
func withNetwork(t *testing.T, f func(t *testing.T, n *network, c *Client), options ...Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t, conns: map[net.Conn]bool{}}
		tr := &http.Transport{DialContext: n.dial}
		c, err := New("http://server.test", append(options, WithTransport(tr))...)
		if err != nil {
			t.Fatal(err)
		}
		f(t, n, c)
		n.kill()
		tr.CloseIdleConnections()
	})
}

// start starts a server.
func (n *network) start(h http.Handler) {
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	n.ln = ln
	n.mu.Unlock()
	go func() { _ = (&http.Server{Handler: h}).Serve(ln) }()
}

// kill ends the server and all its connections, as kill -9 would.
func (n *network) kill() {
	n.mu.Lock()
	ln, conns := n.ln, n.conns
	n.ln, n.conns = nil, map[net.Conn]bool{}
	n.mu.Unlock()
	if ln != nil {
		_ = ln.Close()
	}
	for c := range conns {
		_ = c.Close()
	}
}

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	ln := n.ln
	n.mu.Unlock()
	if ln == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	ours, theirs := net.Pipe()
	select {
	case ln.conns <- theirs:
	case <-ln.closed:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[theirs] = true
	return ours, nil
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{} // closed by Close
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// cutConnection ends the connection of a request without another byte.
func cutConnection() { panic(http.ErrAbortHandler) }

// writeProblem answers with a problem.
func writeProblem(w http.ResponseWriter, status int, code, retryAfter string) {
	if retryAfter != "" {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"status":0,"code":"` + code + `","detail":"because of ` + code + `"}`))
}

func wantCode(t *testing.T, err error, code string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("the error is %v, want one with the code %q", err, code)
	}
	return e
}
