// Package cutproxy is a TCP proxy for tests. Its address stays the same while its target
// changes, and its connections can be cut.
package cutproxy

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy relays TCP connections to its current target.
type Proxy struct {
	listener   net.Listener // set once
	goroutines sync.WaitGroup

	mu sync.Mutex
	// guarded by mu
	target string     // host:port; "" for none
	conns  []net.Conn // both ends of every connection made since the last Cut
}

// New listens on a free port of 127.0.0.1 until the test ends. The proxy closes every new
// connection until SetTarget is called.
func New(t testing.TB) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l}
	p.goroutines.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		// A connection that was just accepted must not be dialled after the cut.
		p.SetTarget("")
		p.Cut()
		p.goroutines.Wait()
	})
	return p
}

// URL returns the http:// URL of the proxy.
func (p *Proxy) URL() string { return "http://" + p.listener.Addr().String() }

// SetTarget sets the host:port to which new connections are relayed; with "" they are closed.
// Existing connections keep their target.
func (p *Proxy) SetTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// Cut closes every existing connection. New ones are still accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.goroutines.Go(func() { p.relay(client) })
	}
}

func (p *Proxy) relay(client net.Conn) {
	server, err := p.dial(client)
	if err != nil {
		_ = client.Close()
		return
	}
	p.goroutines.Go(func() { copyUntilClosed(client, server) })
	copyUntilClosed(server, client)
}

// dial connects to the target. It holds mu during the call, so that Cut sees the connection.
func (p *Proxy) dial(client net.Conn) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	server, err := net.Dial("tcp", p.target)
	if err == nil {
		p.conns = append(p.conns, client, server)
	}
	return server, err
}

// copyUntilClosed copies one direction. When either end closes, it closes both.
func copyUntilClosed(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}
