package gate

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/api"
)

// What a proxy says of its client, as net/http spells it.
const (
	forwardedFor   = "X-Forwarded-For"
	forwardedProto = "X-Forwarded-Proto"
)

// believe leaves in a request what may be believed. A program on this machine, or a
// trusted proxy, is believed about who asks (X-User-ID), from where
// (X-Forwarded-For, which RemoteAddr then says) and how (X-Forwarded-Proto). From
// anyone else these headers are taken away.
func (g *Gate) believe(r *http.Request) *http.Request {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil && g.trusts(peer.Addr()) {
		chain := r.Header[forwardedFor]
		if len(chain) == 0 {
			return r
		}
		believed := *r
		believed.RemoteAddr = netip.AddrPortFrom(g.client(peer.Addr(), chain), 0).String()
		return &believed
	}
	if api.Header(r, userHeader) == "" && api.Header(r, forwardedProto) == "" {
		return r
	}
	believed := *r
	believed.Header = r.Header.Clone()
	believed.Header.Del(userHeader)
	believed.Header.Del(forwardedProto)
	return &believed
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

// client is where a request began, as far as it is known: each trusted proxy's word
// for whom it had it from counts, from the last one back, until one is a stranger,
// who may have written all that stands before. What is no address ends it too.
func (g *Gate) client(peer netip.Addr, chain []string) netip.Addr {
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

// parseHop reads an address, which some proxies write with a port.
func parseHop(text string) (netip.Addr, bool) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.Addr().Unmap(), true
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return addr.Unmap(), err == nil
}
