package llm

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// nat forwards connections to a server until it forgets them: then their bytes vanish, without a
// FIN or a reset. New connections work.
type nat struct {
	net.Listener
	to string

	mu sync.Mutex
	// guarded by mu
	open []*forgotten
}

// forgotten is a pair of connections that may be forgotten.
type forgotten struct {
	client, server net.Conn
	dead           atomic.Bool
}

func newNAT(t *testing.T, to string) *nat {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nat{Listener: l, to: to}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				return
			}
			f := &forgotten{client: client, server: server}
			n.mu.Lock()
			n.open = append(n.open, f)
			n.mu.Unlock()
			all.Go(func() { f.forward(client, server) })
			all.Go(func() { f.forward(server, client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		n.mu.Lock()
		for _, f := range n.open {
			_, _ = f.client.Close(), f.server.Close()
		}
		n.mu.Unlock()
		all.Wait()
	})
	return n
}

// forward copies bytes, and drops those of a forgotten connection.
func (f *forgotten) forward(from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if f.dead.Load() {
			if err != nil {
				return
			}
			continue
		}
		if err == nil {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			_, _ = f.client.Close(), f.server.Close()
			return
		}
	}
}

// forget lets all open connections die silently.
func (n *nat) forget() (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.open {
		f.dead.Store(true)
	}
	return len(n.open)
}

// An HTTP/2 connection that has died without a FIN is pinged and dropped. The call on it fails
// soon, and the next attempt dials anew.
func TestDeadHTTP2ConnectionIsDropped(t *testing.T) {
	t.Parallel()
	var protocol atomic.Value
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocol.Store(r.Proto)
		streamHandler(`{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}`, "[DONE]")(w, r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	between := newNAT(t, server.Listener.Addr().String())

	transport := newTransport()
	if transport.HTTP2.SendPingTimeout != pingAfter || transport.HTTP2.PingTimeout != pingTimeout {
		t.Fatalf("silent connections are not pinged: %+v", transport.HTTP2)
	}
	transport.HTTP2.SendPingTimeout, transport.HTTP2.PingTimeout = 50*time.Millisecond, 50*time.Millisecond
	transport.TLSClientConfig = &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}
	t.Cleanup(transport.CloseIdleConnections)
	e := mustNew(t, Config{Models: []Model{{Name: "m", BaseURL: "https://" + between.Addr().String() + "/v1"}}, Transport: transport})

	run(t, e, hello)
	if protocol.Load() != "HTTP/2.0" {
		t.Fatalf("the server was asked by %v", protocol.Load())
	}
	if n := between.forget(); n != 1 {
		t.Fatalf("there are %d connections", n)
	}
	began := time.Now()
	err := exectest.Start(t, e, exectest.Task([]byte(hello))).Wait()
	if f := job.FaultOf(err); err != nil && (f.Code != "upstream_disconnected" || f.Class != job.Retryable) {
		t.Errorf("the call on the dead connection ended with %+v", f)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a dead connection was noticed after %v", took)
	}
	run(t, e, hello)
}

// A connection that dies while no call uses it does not fail a call for long: keep-alive probes
// find it, and unacknowledged data closes it.
func TestConnectionsAreProbed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	conn, err := newTransport().DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, want := range wantedSocketOptions {
		if got := socketOption(t, conn, name); got != want {
			t.Errorf("the socket option %d is %d, want %d", name, got, want)
		}
	}
}
