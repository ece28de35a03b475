// Package wire is a network for tests: one that can be cut, and whose address stays
// the same whatever server it leads to, and wherever that one listens.
package wire

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Wire leads clients to a server.
type Wire struct {
	listener net.Listener // set once
	all      sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	to   string     // where it leads; "" for nowhere
	ends []net.Conn // of the connections there were since the last cut
}

// Lay listens for clients, until the test ends. Until Lead is called it leads nowhere:
// connections are closed as soon as they are made.
func Lay(t testing.TB) *Wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{listener: l}
	w.all.Go(w.accept)
	t.Cleanup(func() {
		_ = l.Close()
		w.Lead("") // also whoever was accepted just now
		w.Cut()
		w.all.Wait()
	})
	return w
}

// URL is where clients find it.
func (w *Wire) URL() string { return "http://" + w.listener.Addr().String() }

// Lead leads to an address from now on; "" for nowhere.
func (w *Wire) Lead(to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = to
}

// Cut breaks every connection there is. New ones are made as before.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, end := range w.ends {
		_ = end.Close()
	}
	w.ends = nil
}

func (w *Wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.all.Go(func() { w.relay(client) })
	}
}

func (w *Wire) relay(client net.Conn) {
	server, err := w.dial(client)
	if err != nil {
		_ = client.Close()
		return
	}
	w.all.Go(func() { carry(client, server) })
	carry(server, client)
}

// dial connects to where the wire leads, if it leads anywhere.
func (w *Wire) dial(client net.Conn) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	server, err := net.Dial("tcp", w.to)
	if err == nil {
		w.ends = append(w.ends, client, server)
	}
	return server, err
}

// carry carries what one end says to the other, until one of them is gone.
func carry(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}
