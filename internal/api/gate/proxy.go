package gate

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"

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
	user, ok := r.Context().Value(userKey{}).(string)
	if !ok {
		return g.dropUntrustedHeaders(r)
	}
	named := *g.dropUntrustedHeaders(r)
	named.Header = named.Header.Clone()
	named.Header[userHeader] = []string{user}
	return &named
}

type userKey struct{}

// WithUser returns a request that is made in the name of a user, whatever its X-User-ID
// says. A program that embeds the server has authenticated the user. The address of the
// request stays: the user is not on this machine because of that.
func WithUser(r *http.Request, user string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), userKey{}, user))
}

type vouchedKey struct{}

// Vouch returns a request that needs no key: it comes over a way that only the server's own
// program or the administrator of its machine has. It has every scope, and names its user with
// X-User-ID if it comes from this machine.
func Vouch(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), vouchedKey{}, true))
}

// isVouched reports whether a request came through [Vouch] or [WithUser].
func isVouched(r *http.Request) bool {
	_, named := r.Context().Value(userKey{}).(string)
	return named || r.Context().Value(vouchedKey{}) != nil
}

func (g *Gate) dropUntrustedHeaders(r *http.Request) *http.Request {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil && g.Trusts(peer.Addr()) {
		chain, forwarded := r.Header[forwardedFor]
		if !forwarded && !isForwarded(r) {
			return r
		}
		trusted := *r
		if client, ok := g.clientAddr(chain); ok {
			trusted.RemoteAddr = netip.AddrPortFrom(client, 0).String()
		} else {
			// No address: it must not count as this machine, nor as the proxy.
			trusted.RemoteAddr = "unknown, through " + r.RemoteAddr
		}
		return &trusted
	}
	trusted := r.WithContext(context.WithValue(r.Context(), untrustedKey{}, true))
	if api.Header(r, userHeader) == "" && api.Header(r, forwardedProto) == "" {
		return trusted
	}
	trusted.Header = r.Header.Clone()
	trusted.Header.Del(userHeader)
	trusted.Header.Del(forwardedProto)
	return trusted
}

// untrustedKey marks the requests of peers that may not name a user.
type untrustedKey struct{}

// maySpeakForUsers reports whether the peer of a request may name the user: a program on this
// machine, a trusted proxy, or a program that embeds the server and uses [WithUser].
func maySpeakForUsers(r *http.Request) bool {
	_, named := r.Context().Value(userKey{}).(string)
	return named || r.Context().Value(untrustedKey{}) == nil
}

// Trusts reports whether a peer is on this machine or a trusted proxy.
func (g *Gate) Trusts(addr netip.Addr) bool {
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

// isForwarded reports whether a request came through a proxy that does not send
// X-Forwarded-For.
func isForwarded(r *http.Request) bool {
	for _, name := range [...]string{"Forwarded", "Via", "X-Real-Ip", "X-Forwarded-Host", forwardedProto} {
		if len(r.Header[name]) > 0 {
			return true
		}
	}
	return false
}

// clientAddr returns the address of the client, from the values of X-Forwarded-For. Each
// proxy appends the address of its own peer, so it reads the addresses from the last to the
// first for as long as the peer so far is trusted. An untrusted peer is the client: it may
// have invented the addresses before its own. It returns false where text that is no
// address, or no text at all, stands where the address of a trusted peer's client is to be.
func (g *Gate) clientAddr(chain []string) (client netip.Addr, ok bool) {
	hops := strings.Join(chain, ",")
	for {
		last := hops[strings.LastIndexByte(hops, ',')+1:]
		if client, ok = parseHop(strings.TrimSpace(last)); !ok {
			return client, false
		}
		hops = strings.TrimSuffix(hops, last)
		if hops == "" || !g.Trusts(client) {
			return client, true
		}
		hops = strings.TrimSuffix(hops, ",")
	}
}

// parseHop reads an address. Some proxies write it with a port.
func parseHop(text string) (netip.Addr, bool) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.Addr().Unmap(), true
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return addr.Unmap(), err == nil
}

// userWarning warns once that an X-User-ID was not believed: the jobs of all users of such a
// proxy belong to the user "local".
type userWarning struct {
	// set once
	log *slog.Logger

	warned atomic.Bool
}

// check compares a request with what dropUntrusted has left of it.
func (w *userWarning) check(r, believed *http.Request) {
	if w.log == nil || r == believed || api.Header(r, userHeader) == api.Header(believed, userHeader) || !w.warned.CompareAndSwap(false, true) {
		return
	}
	w.log.Warn("X-User-ID of a peer is not believed, so its jobs are the user local's: if the peer is a proxy of yours, name it in trusted_proxies; this is said once",
		"from", r.RemoteAddr)
}
