package gate

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/api"
)

// The headers in which a proxy describes its client, as net/http spells them.
const (
	forwardedFor   = "X-Forwarded-For"
	forwardedProto = "X-Forwarded-Proto"
)

// dropUntrusted returns the request with only the headers that may be trusted. A program on
// this machine and a trusted proxy may name the user (X-User-ID), the client's address
// (X-Forwarded-For, which becomes RemoteAddr) and the scheme (X-Forwarded-Proto). From
// other peers these headers are removed.
func (g *Gate) dropUntrusted(r *http.Request) *http.Request {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil && g.trusts(peer.Addr()) {
		chain := r.Header[forwardedFor]
		if len(chain) == 0 {
			return r
		}
		trusted := *r
		trusted.RemoteAddr = netip.AddrPortFrom(g.clientAddr(peer.Addr(), chain), 0).String()
		return &trusted
	}
	if api.Header(r, userHeader) == "" && api.Header(r, forwardedProto) == "" {
		return r
	}
	trusted := *r
	trusted.Header = r.Header.Clone()
	trusted.Header.Del(userHeader)
	trusted.Header.Del(forwardedProto)
	return &trusted
}

func (g *Gate) trusts(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() {
		return true
	}
	for _, proxies := range g.TrustedProxies {
		if proxies.Contains(addr) {
			return true
		}
	}
	return false
}

// clientAddr returns the address of the client, from the values of X-Forwarded-For. Each
// proxy appends the address of its own peer, so it reads the addresses from the last to the
// first for as long as the peer so far is trusted. An untrusted peer is the client: it may
// have invented the addresses before its own. Text that is no address ends the walk too.
func (g *Gate) clientAddr(peer netip.Addr, chain []string) netip.Addr {
	hops := strings.Join(chain, ",")
	for g.trusts(peer) && hops != "" {
		last := hops[strings.LastIndexByte(hops, ',')+1:]
		addr, ok := parseHop(strings.TrimSpace(last))
		if !ok {
			break
		}
		peer = addr
		hops = strings.TrimSuffix(strings.TrimSuffix(hops, last), ",")
	}
	return peer
}

// parseHop reads an address. Some proxies write it with a port.
func parseHop(text string) (netip.Addr, bool) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.Addr().Unmap(), true
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return addr.Unmap(), err == nil
}
