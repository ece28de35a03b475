// Package netguard makes HTTP requests whose URLs come from strangers, such as callbacks, without
// letting them reach what only this machine can reach: loopback, the networks around it, and the
// metadata service of its cloud.
//
// A [Guard] decides twice. [Guard.CheckURL] judges a URL by its text, when it is stored; it asks
// no DNS server, so it reveals nothing. [Guard.Transport] judges each request again, and every
// address right before it is dialled. A name is resolved once and the checked addresses are
// dialled, so a DNS server that gives another answer the second time is not asked again.
//
// What is not certainly public is refused. Proxies of the environment are ignored: a proxy would
// resolve and dial in our place.
package netguard

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

// Guard decides which requests may be made. Its zero value allows public addresses only. Its
// methods are safe for concurrent use; the fields must not change after the first call.
type Guard struct {
	// Allow lists what may be reached although it is not public.
	Allow Allow
	// Loopback allows the addresses of this machine itself. It is for a server that only programs
	// on its own machine can reach: they can dial these addresses themselves.
	Loopback bool
	// Resolver looks names up; nil for the system's.
	Resolver Resolver
}

// Resolver is the part of [net.Resolver] that a guard uses.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// maxURL is the longest URL, in bytes.
const maxURL = 2048

// CheckURL returns an error of the type *[Error] for a URL that no request may be made to,
// whatever its name resolves to.
func (g *Guard) CheckURL(text string) (*url.URL, error) {
	if len(text) > maxURL {
		return nil, errorf(BadURL, "the URL has %d bytes, and may have %d", len(text), maxURL)
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c >= 0x7f {
			return nil, errorf(BadURL, "the URL must be of printable ASCII characters: write other ones in percent-encoding, and a host name in the form xn--…")
		}
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "" {
		return nil, errorf(BadURL, "the URL must be like https://app.example.com/callback")
	}
	// They would be in logs and in the answers of the API.
	if u.User != nil {
		return nil, errorf(BadURL, "the URL must be without a user and a password: the signature shows who sends")
	}
	if u.Fragment != "" {
		return nil, errorf(BadURL, "the URL must be without a fragment: it is never sent")
	}
	return u, g.check(u)
}

// check judges a parsed URL.
func (g *Guard) check(u *url.URL) error {
	port, err := portOf(u)
	if err != nil {
		return err
	}
	host, plain := canonicalHost(u.Hostname()), u.Scheme == "http"
	if addr, err := netip.ParseAddr(host); err == nil {
		return g.checkAddress(host, netip.AddrPortFrom(addr, port), plain)
	}
	switch {
	case !isHostName(host):
		return errorf(BadURL, "the URL's host must be a name such as app.example.com, or an address such as 192.0.2.7 or [2001:db8::7]")
	case g.Allow.host(host, port):
		return nil
	case isLocalhost(host):
		return g.checkAddress(host, netip.AddrPortFrom(loopback, port), plain)
	case g.Allow.networks != nil:
		return nil // the name may resolve to one of them
	}
	return checkPublic(port, plain)
}

// loopback is what localhost and the names below it stand for (RFC 6761, section 6.3).
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// checkAddress judges an address under which a host is to be dialled. plain is a request without
// TLS.
func (g *Guard) checkAddress(host string, at netip.AddrPort, plain bool) error {
	addr, embedded := unwrap(at.Addr())
	switch {
	case at.Addr().Zone() != "" || isMetadata(addr):
		return refusedAddress(host)
	case g.Allow.host(host, at.Port()) || g.Allow.address(addr, at.Port()):
		return nil
	case addr.IsLoopback() && !embedded:
		if g.Loopback {
			return nil
		}
		return refusedAddress(host)
	case !isPublic(addr):
		return refusedAddress(host)
	}
	return checkPublic(at.Port(), plain)
}

// checkPublic judges a request to a public address.
func checkPublic(port uint16, plain bool) error {
	if plain {
		return errorf(NeedsHTTPS, "the URL must begin with https://: the body would be readable on its way. An operator can list the host in callbacks.allow")
	}
	if !isWebPort(port) {
		return errorf(RefusedPort, "the port %d belongs to another protocol than HTTP: use 443, or a port above 1023. An operator can list host:port in callbacks.allow", port)
	}
	return nil
}

// Dialling times out after dialTimeout. Of a host with many addresses, the first maxAddresses that
// may be dialled are tried, one after another.
const (
	dialTimeout  = 10 * time.Second
	minDial      = 2 * time.Second
	maxAddresses = 6
)

// DialContext dials a host and port as [net.Dialer.DialContext] does, after checking each address.
// A request without TLS must come from [Guard.Transport] to be told from others; for others it is
// assumed.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, errorf(BadURL, "the address is not host:port")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, errorf(BadURL, "the port is not a number")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	targets, err := g.resolve(ctx, canonicalHost(host), uint16(port))
	if err != nil {
		return nil, err
	}
	for i, target := range targets {
		var conn net.Conn
		if conn, err = g.dialOne(ctx, network, canonicalHost(host), target, len(targets)-i); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// resolve returns the addresses of a host that may be dialled: at least one.
func (g *Guard) resolve(ctx context.Context, host string, port uint16) ([]netip.AddrPort, error) {
	plain := isPlain(ctx)
	if addr, err := netip.ParseAddr(host); err == nil {
		at := netip.AddrPortFrom(addr, port)
		return []netip.AddrPort{at}, g.checkAddress(host, at, plain)
	}
	if isLocalhost(host) && !g.Allow.host(host, port) {
		both := []netip.AddrPort{netip.AddrPortFrom(loopback, port), netip.AddrPortFrom(netip.IPv6Loopback(), port)}
		return both, g.checkAddress(host, both[0], plain)
	}
	resolver := g.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	addrs, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, unreachableHost(host, err)
	}
	var permitted []netip.AddrPort
	// The same error as for a name that does not exist: which names exist inside, and which
	// addresses they have, is nobody's business.
	refusal := unreachableHost(host, nil)
	for _, addr := range addrs {
		at := netip.AddrPortFrom(addr, port)
		err := g.checkAddress(host, at, plain)
		if err == nil && len(permitted) < maxAddresses {
			permitted = append(permitted, at)
		}
		if e, ok := errors.AsType[*Error](err); ok && e.Code != RefusedAddress {
			refusal = e // the address is public, and asked in the wrong way
		}
	}
	if len(permitted) == 0 {
		return nil, refusal
	}
	return permitted, nil
}

// dialOne dials an address. left is how many addresses share the time that is left.
func (g *Guard) dialOne(ctx context.Context, network, host string, at netip.AddrPort, left int) (net.Conn, error) {
	d := net.Dialer{}
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		d.Timeout = max(time.Until(deadline)/time.Duration(left), minDial)
	}
	plain := isPlain(ctx)
	// The last word about the address that the system really connects to.
	d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		real, err := netip.ParseAddrPort(address)
		if err != nil {
			return refusedAddress(host)
		}
		return g.checkAddress(host, real, plain)
	}
	conn, err := d.DialContext(ctx, network, at.String())
	if err != nil {
		return nil, &Error{Code: Unreachable, Message: "the host " + quote(host) + " accepts no connection at port " + strconv.Itoa(int(at.Port())), Err: err}
	}
	return conn, nil
}

// Transport returns a transport that checks the URL of each request, and each address that is
// dialled. It keeps up to idle connections open, and follows no proxy. It also checks what a client
// asks for that follows redirects; callers should follow none.
func (g *Guard) Transport(idle int) *Transport {
	return &Transport{guard: g, http: &http.Transport{
		Proxy:                  nil,
		DialContext:            g.DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
		MaxIdleConns:           idle,
		MaxIdleConnsPerHost:    idle,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // an answer must not be larger than what is read of it
	}}
}

// Transport is the [http.RoundTripper] of a guard.
type Transport struct {
	guard *Guard
	http  *http.Transport
}

// RoundTrip makes a request unless the guard refuses it, with an error of the type *[Error].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, err := t.guard.CheckURL(req.URL.String()); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	if req.URL.Scheme == "https" {
		req = req.WithContext(context.WithValue(req.Context(), withTLS{}, true))
	}
	return t.http.RoundTrip(req)
}

// CloseIdleConnections closes the connections that no request uses.
func (t *Transport) CloseIdleConnections() { t.http.CloseIdleConnections() }

// withTLS is the key of a context that belongs to a request with TLS.
type withTLS struct{}

func isPlain(ctx context.Context) bool { return ctx.Value(withTLS{}) == nil }
