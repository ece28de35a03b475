package server

import (
	"io"
	"net"
	"sync"
	"testing"
)

// wire is a network between clients and a server, which the test can cut.
type wire struct {
	listener net.Listener
	to       string
	all      sync.WaitGroup

	mu   sync.Mutex
	ends []net.Conn // guarded by mu: of the connections there were since the last cut
}

// layWire listens for clients. Connect leads them to a server.
func layWire(t *testing.T) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l}
	t.Cleanup(func() {
		_ = l.Close()
		w.cut()
		w.all.Wait()
	})
	return w
}

func (w *wire) url() string { return "http://" + w.listener.Addr().String() }

// connect leads to a server from now on.
func (w *wire) connect(to net.Addr) {
	w.to = to.String()
	w.all.Go(func() {
		for {
			client, err := w.listener.Accept()
			if err != nil {
				return
			}
			w.all.Go(func() { w.relay(client) })
		}
	})
}

func (w *wire) relay(client net.Conn) {
	server, err := net.Dial("tcp", w.to)
	if err != nil {
		_ = client.Close()
		return
	}
	w.mu.Lock()
	w.ends = append(w.ends, client, server)
	w.mu.Unlock()
	w.all.Go(func() { carry(client, server) })
	carry(server, client)
}

// carry carries what one end says to the other, until one of them is gone.
func carry(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}

// cut breaks every connection there is. New ones are made as before.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, end := range w.ends {
		_ = end.Close()
	}
	w.ends = nil
}
