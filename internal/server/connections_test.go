package server

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// limitedServer serves "ok" with limits on its connections.
func limitedServer(t *testing.T, limits connectionLimits, handler http.Handler) (c *connections, addr string, log *lockedBuffer) {
	t.Helper()
	log = &lockedBuffer{}
	c = newConnections(limits, slog.New(slog.NewTextHandler(log, nil)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler, ConnState: c.track}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(c.listen(l)) }()
	t.Cleanup(func() { _ = srv.Close(); <-served; c.wait() })
	return c, l.Addr().String(), log
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func dialTCP(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// get makes a request on a connection that stays open.
func get(t *testing.T, conn net.Conn) (status int, retryAfter, body string) {
	t.Helper()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Retry-After"), string(text)
}

func nobody(netip.Addr) bool    { return false }
func everybody(netip.Addr) bool { return true }

var plain = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })

// The longest idle connection makes room: first of all those that never made a request.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]connectionLimits{
		"in all":         {all: 3, perAddress: 1, trusts: everybody},
		"of one address": {all: 100, perAddress: 3, trusts: nobody},
	} {
		c, addr, _ := limitedServer(t, limits, plain)
		var conns []net.Conn
		for range 6 {
			conn := dialTCP(t, addr)
			if status, _, _ := get(t, conn); status != 200 {
				t.Errorf("%s: %d", name, status)
			}
			conns = append(conns, conn)
			// The server notes it after the client has the response.
			until(t, min(len(conns), 3), func() int {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.idle.Len()
			})
		}
		for i, conn := range conns[:3] {
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("%s: connection %d is still open: %d, %v", name, i, n, err)
			}
		}
		for _, conn := range conns[3:] {
			if status, _, _ := get(t, conn); status != 200 {
				t.Errorf("%s: a younger one: %d", name, status)
			}
		}
		if s := c.statsNow(); s.Open != 3 || s.ClosedIdle != 3 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// While none is idle, another connection is refused with a status, Retry-After and a code.
func TestBusyConnectionsAreKept(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limits connectionLimits
		status int
		code   string
	}{
		"in all":         {connectionLimits{all: 2, perAddress: 1, trusts: everybody}, 503, "overloaded"},
		"of one address": {connectionLimits{all: 100, perAddress: 2, trusts: nobody}, 429, "caller_busy"},
	} {
		release, began := make(chan struct{}), make(chan struct{})
		_, addr, log := limitedServer(t, tt.limits, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			began <- struct{}{}
			<-release
		}))
		for range 2 {
			conn := dialTCP(t, addr)
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
			<-began
		}
		status, retryAfter, body := get(t, dialTCP(t, addr))
		if status != tt.status || retryAfter == "" || !strings.Contains(body, `"code":"`+tt.code+`"`) {
			t.Errorf("%s: %d, Retry-After %q, %s", name, status, retryAfter, body)
		}
		if !strings.Contains(log.String(), "WARN") {
			t.Errorf("%s: the log is %s", name, log)
		}
		close(release)
	}
}

// A connection counts until it is closed, also where a handler has taken it over.
func TestHijackedConnectionsCount(t *testing.T) {
	t.Parallel()
	taken := make(chan net.Conn, 1)
	c, addr, _ := limitedServer(t, connectionLimits{all: 1, trusts: everybody}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
		}
		taken <- conn
	}))
	first := dialTCP(t, addr)
	_, _ = io.WriteString(first, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	conn := <-taken
	if status, _, _ := get(t, dialTCP(t, addr)); status != 503 {
		t.Errorf("beside a taken connection: %d", status)
	}
	_ = conn.Close()
	_ = conn.Close() // counts once
	if s := c.statsNow(); s.Open != 0 {
		t.Errorf("%d are open", s.Open)
	}
}

// An IPv6 client has its whole network, and counts as one.
func TestIPv6ClientCountsAsItsNetwork(t *testing.T) {
	t.Parallel()
	c := newConnections(connectionLimits{trusts: func(a netip.Addr) bool { return a.Unmap().IsLoopback() }}, slog.New(slog.DiscardHandler))
	for from, want := range map[string]string{
		"[2001:db8::1]:5": "2001:db8::", "[2001:db8::ffff:1]:5": "2001:db8::", "[2001:db8:0:1::1]:5": "2001:db8:0:1::",
		"192.0.2.7:5": "192.0.2.7", "[::ffff:192.0.2.7]:5": "192.0.2.7", "127.0.0.1:5": "invalid IP", "[::1]:5": "invalid IP", "@": "invalid IP",
	} {
		if got := c.limitedAddr(addrConn{from: from}).String(); got != want {
			t.Errorf("%s counts as %s, not %s", from, got, want)
		}
	}
}

// addrConn is a connection with a remote address only.
type addrConn struct {
	net.Conn
	from string
}

func (c addrConn) RemoteAddr() net.Addr { return textAddr(c.from) }

type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }
