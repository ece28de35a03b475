package server

import (
	"container/list"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/telemetry"
)

// connectionLimits bound the connections of a listener. 0 is no limit.
type connectionLimits struct {
	all        int
	perAddress int                   // of an address that trusts does not accept
	trusts     func(netip.Addr) bool // this machine and the trusted proxies
}

// connections counts the connections of a server's listeners and closes some of them, so that
// descriptors are left for work. A connection past a limit takes the place of one that is
// idle: of the same address, or of the server. Where none is idle, the new one is refused
// with a status and Retry-After.
type connections struct {
	// set once
	limits connectionLimits
	log    *slog.Logger
	secure bool // the clients speak TLS, and could not read a refusal

	mu sync.Mutex
	// guarded by mu
	open     int
	idle     *list.List           // of *limitedConn without a request, the longest idle first
	peers    map[netip.Addr]*peer // untrusted addresses with open connections
	refusing int                  // refused connections whose client has not left yet
	stats    telemetry.ConnectionStats
	warned   time.Time // when the last warning was logged

	refused sync.WaitGroup // the goroutines of refused connections
}

// peer has the connections of one untrusted address.
type peer struct {
	open int
	idle *list.List // as connections.idle
}

const (
	maxRefusing     = 32               // refused connections that may stay open to be read out
	refuseTimeout   = 2 * time.Second  // how long one of them may
	connectionWarns = 10 * time.Second // the least time between two warnings
)

func newConnections(limits connectionLimits, log *slog.Logger) *connections {
	return &connections{limits: limits, log: log, peers: map[netip.Addr]*peer{}, idle: list.New()}
}

// statsNow returns the numbers for metrics.
func (c *connections) statsNow() telemetry.ConnectionStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Open, s.Max = c.open, c.limits.all
	return s
}

// listen returns a listener whose connections are counted. The http.Server that serves them
// must have track as its ConnState.
func (c *connections) listen(l net.Listener) net.Listener { return limitedListener{l, c} }

type limitedListener struct {
	net.Listener
	all *connections
}

// Accept returns the next connection that is within the limits.
func (l limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				l.all.outOfDescriptors(err)
			}
			return nil, err // net/http waits and tries again
		}
		if admitted := l.all.admit(conn); admitted != nil {
			return admitted, nil
		}
	}
}

// limitedConn is a counted connection.
type limitedConn struct {
	net.Conn
	all  *connections
	addr netip.Addr // zero for a trusted one

	// guarded by all.mu
	place       *list.Element // in all.idle, or nil
	placeOfPeer *list.Element // in the idle list of its peer, or nil
	closed      bool
}

// admit counts a connection. It returns nil for one that was refused.
func (c *connections) admit(conn net.Conn) net.Conn {
	l := &limitedConn{Conn: conn, all: c, addr: c.limitedAddr(conn)}
	status, evicted := c.enter(l)
	if evicted != nil {
		_ = evicted.Close()
	}
	if status != 0 {
		c.refuse(conn, status)
		return nil
	}
	return l
}

// enter counts l, or returns the status with which it is refused. evicted is an idle
// connection that must be closed to make room.
func (c *connections) enter(l *limitedConn) (status int, evicted *limitedConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[l.addr]; p != nil && c.limits.perAddress > 0 && p.open >= c.limits.perAddress {
		if evicted = longestIdle(p.idle); evicted == nil {
			c.stats.RefusedAddress++
			c.warnLocked("an address has as many connections as it may, and none is idle: more are refused", "address", l.addr.String(), "limit", c.limits.perAddress)
			return http.StatusTooManyRequests, nil
		}
	} else if c.limits.all > 0 && c.open >= c.limits.all {
		if evicted = longestIdle(c.idle); evicted == nil {
			c.stats.RefusedFull++
			c.warnLocked("the server has as many connections as it may, and none is idle: more are refused", "limit", c.limits.all)
			return http.StatusServiceUnavailable, nil
		}
		c.warnLocked("the server has as many connections as it may: the longest idle ones are closed", "limit", c.limits.all)
	}
	if evicted != nil {
		c.stats.ClosedIdle++
		c.leaveLocked(evicted)
	}
	c.open++
	if l.addr.IsValid() {
		if c.peers[l.addr] == nil {
			c.peers[l.addr] = &peer{idle: list.New()}
		}
		c.peers[l.addr].open++
	}
	c.setIdleLocked(l) // until its first request has arrived
	return 0, evicted
}

// longestIdle returns the first connection of a list; nil for none.
func longestIdle(idle *list.List) *limitedConn {
	if e := idle.Front(); e != nil {
		return e.Value.(*limitedConn)
	}
	return nil
}

// leaveLocked ends the counting of a connection.
func (c *connections) leaveLocked(l *limitedConn) {
	if l.closed {
		return
	}
	l.closed = true
	c.setBusyLocked(l)
	c.open--
	if p := c.peers[l.addr]; p != nil {
		if p.open--; p.open == 0 {
			delete(c.peers, l.addr)
		}
	}
}

func (c *connections) setIdleLocked(l *limitedConn) {
	if l.place != nil || l.closed {
		return
	}
	l.place = c.idle.PushBack(l)
	if p := c.peers[l.addr]; p != nil {
		l.placeOfPeer = p.idle.PushBack(l)
	}
}

func (c *connections) setBusyLocked(l *limitedConn) {
	if l.place != nil {
		c.idle.Remove(l.place)
		l.place = nil
	}
	if l.placeOfPeer != nil {
		c.peers[l.addr].idle.Remove(l.placeOfPeer)
		l.placeOfPeer = nil
	}
}

// track follows the state of a connection, for [http.Server.ConnState].
func (c *connections) track(conn net.Conn, state http.ConnState) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	l, ok := conn.(*limitedConn)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateIdle:
		c.setIdleLocked(l)
	case http.StateActive, http.StateHijacked:
		c.setBusyLocked(l)
	}
}

// Close closes the connection. Its descriptor is free when it returns.
func (l *limitedConn) Close() error {
	err := l.Conn.Close()
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	l.all.leaveLocked(l)
	return err
}

// CloseWrite closes the sending side. [http.Server] calls it to end a connection whose
// client still sends.
func (l *limitedConn) CloseWrite() error {
	if half, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// outOfDescriptors is called when the process can open no more files. Closing idle
// connections gives some back.
func (c *connections) outOfDescriptors(err error) {
	const enough = 8
	var evicted []*limitedConn
	c.mu.Lock()
	c.stats.OutOfDescriptors++
	for e := c.idle.Front(); e != nil && len(evicted) < enough; e = c.idle.Front() {
		l := e.Value.(*limitedConn)
		c.leaveLocked(l)
		evicted = append(evicted, l)
	}
	c.stats.ClosedIdle += len(evicted)
	c.warnLocked("the process has no file descriptor left, so no connection can be accepted: raise its limit (ulimit -n, LimitNOFILE)", "idle_closed", len(evicted), "error", err)
	c.mu.Unlock()
	for _, l := range evicted {
		_ = l.Close()
	}
}

// warnLocked logs a warning, at most one in connectionWarns.
func (c *connections) warnLocked(message string, args ...any) {
	if now := time.Now(); c.warned.IsZero() || now.Sub(c.warned) >= connectionWarns {
		c.warned = now
		c.log.Warn(message, append(args, "open", c.open)...)
	}
}

// limitedAddr returns the address for which a connection counts. It is zero for a trusted peer.
func (c *connections) limitedAddr(conn net.Conn) netip.Addr {
	peer, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil || c.limits.trusts(peer.Addr()) {
		return netip.Addr{}
	}
	return gate.ClientAddr(peer.Addr())
}

// refuse answers a connection with a status and closes it. A close with unread bytes would
// reset the connection before the client has read the answer, so a bounded number of refused
// ones are read out for a moment.
func (c *connections) refuse(conn net.Conn, status int) {
	if c.secure {
		_ = conn.Close()
		return
	}
	c.mu.Lock()
	linger := c.refusing < maxRefusing
	if linger {
		c.refusing++
	}
	c.mu.Unlock()
	_ = conn.SetDeadline(time.Now().Add(refuseTimeout))
	_, _ = io.WriteString(conn, refusals[status]) // it fits the empty send buffer of a new connection
	if !linger {
		_ = conn.Close()
		return
	}
	c.refused.Go(func() {
		defer func() {
			_ = conn.Close()
			c.mu.Lock()
			defer c.mu.Unlock()
			c.refusing--
		}()
		if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, conn, 64<<10)
		}
	})
}

// wait returns when all refused connections are closed. The listeners accept no more.
func (c *connections) wait() { c.refused.Wait() }

// refusals are the answers to connections past a limit, by status.
var refusals = map[int]string{
	http.StatusTooManyRequests:    refusal(http.StatusTooManyRequests, "caller_busy", "this address has as many connections open as it may: close some"),
	http.StatusServiceUnavailable: refusal(http.StatusServiceUnavailable, "overloaded", "the server has as many connections open as it may: try again in a moment"),
}

func refusal(status int, code, detail string) string {
	body := fmt.Sprintf(`{"type":"about:blank","title":%q,"status":%d,"detail":%q,"code":%q}`, http.StatusText(status), status, detail, code)
	return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		status, http.StatusText(status), len(body), body)
}
