// Package cutproxy is a TCP proxy for tests. Its address stays the same while its target
// changes. Its connections can be cut, and can hang as when a network loses every packet.
package cutproxy

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// Proxy relays TCP connections to its current target.
type Proxy struct {
	listener   net.Listener // set once
	goroutines sync.WaitGroup
	done       chan struct{} // closed by Close

	mu sync.Mutex
	// guarded by mu
	target string     // host:port, or the path of a Unix socket; "" for none
	conns  []net.Conn // both ends of every connection made since the last Cut
	gate   *gate      // of new connections
	reply  Copy       // of new connections; nil for io.Copy
}

// Copy copies what the target sends to a client, until one of them fails.
type Copy func(to io.Writer, from io.Reader) error

// New listens on a free port of 127.0.0.1 until the test ends. The proxy closes every new
// connection until SetTarget is called.
func New(t testing.TB) *Proxy {
	t.Helper()
	p, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// Listen is New for a program that is no test. The caller calls Close.
func Listen() (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, done: make(chan struct{})}
	p.gate = newGate(p.done)
	p.goroutines.Go(p.accept)
	return p, nil
}

// Close closes the listener and every connection.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	close(p.done)
	// A connection that was just accepted must not be dialled after the cut.
	p.SetTarget("")
	p.Cut()
	p.goroutines.Wait()
}

// URL returns the http:// URL of the proxy.
func (p *Proxy) URL() string { return "http://" + p.Addr() }

// Addr returns the host:port of the proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetTarget sets the host:port, or the path of the Unix socket, to which new connections are
// relayed; with "" they are closed.
// Existing connections keep their target.
func (p *Proxy) SetTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// SetReply sets how new connections copy what the target sends.
func (p *Proxy) SetReply(reply Copy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reply = reply
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

// Hang stops all connections, existing and new ones: nothing arrives, and nothing is closed.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate.shut()
}

// Resume lets the connections that hang continue. What was sent meanwhile arrives.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate.open()
}

// Abandon lets only new connections work. Those that exist hang until they are cut.
func (p *Proxy) Abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate.shut()
	p.gate = newGate(p.done)
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
	p.mu.Lock()
	gate, reply := p.gate, p.reply
	p.mu.Unlock()
	if reply == nil {
		reply = func(to io.Writer, from io.Reader) error {
			_, err := io.Copy(to, from)
			return err
		}
	}
	server, err := p.dial(client)
	if err != nil {
		_ = client.Close()
		return
	}
	p.goroutines.Go(func() {
		_ = reply(gated{gate, client}, server)
		closeBoth(client, server)
	})
	_, _ = io.Copy(gated{gate, server}, client)
	closeBoth(client, server)
}

// closeBoth closes both ends of a connection, because one direction has ended.
func closeBoth(a, b net.Conn) {
	_ = a.Close()
	_ = b.Close()
}

// dial connects to the target. It holds mu during the call, so that Cut sees the connection.
func (p *Proxy) dial(client net.Conn) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	network := "tcp"
	if strings.HasPrefix(p.target, "/") {
		network = "unix"
	}
	server, err := net.Dial(network, p.target)
	if err == nil {
		p.conns = append(p.conns, client, server)
	}
	return server, err
}

// gated is a connection that writes only while its gate is open.
type gated struct {
	gate *gate
	to   io.Writer
}

func (g gated) Write(b []byte) (int, error) {
	if err := g.gate.pass(); err != nil {
		return 0, err
	}
	return g.to.Write(b)
}

// gate stops the connections of a proxy while it is shut.
type gate struct {
	done <-chan struct{} // of the proxy

	mu     sync.Mutex
	opened chan struct{} // guarded by mu; closed while the gate is open
}

func newGate(done <-chan struct{}) *gate {
	g := &gate{done: done, opened: make(chan struct{})}
	close(g.opened)
	return g
}

func (g *gate) isOpen() bool {
	select {
	case <-g.opened:
		return true
	default:
		return false
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isOpen() {
		g.opened = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.isOpen() {
		close(g.opened)
	}
}

// pass waits until the gate is open. It returns an error when the proxy is closed.
func (g *gate) pass() error {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	select {
	case <-opened:
		return nil
	case <-g.done:
		return net.ErrClosed
	}
}
