package gate

import (
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// An Origin is classified as the server's own only if it names the host in the Host
// header. A Host is accepted as loopback only if no stranger could have it.
func FuzzOriginAndHost(f *testing.F) {
	for _, origin := range []string{"http://localhost:8080", "https://jobs.example", "null", "http://127.0.0.1:8080.evil.example", "http://[::1]:8080", "http://a@127.0.0.1:8080", "http://%zz", "HTTP://LOCALHOST", "http://]:"} {
		for _, host := range []string{"localhost:8080", "127.0.0.1:8080", "[::1]:8080", "jobs.example", "", ":8080", "::1", "127.1", "localhost.", "[::1]x", ":]"} {
			f.Add(origin, host)
		}
	}
	loopback, public := &Gate{}, &Gate{PublicURL: mustURL("https://jobs.example"), AllowedOrigins: []string{"https://app.example"}}
	f.Fuzz(func(t *testing.T, origin, host string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		r.Header["Origin"] = []string{origin}
		if loopback.newHostCheck().check(host) == nil && !strings.HasPrefix(strings.ToLower(host), "localhost") {
			bare, _, _ := strings.Cut(strings.Trim(hostname(host), "[]"), "%")
			if addr, err := netip.ParseAddr(bare); err != nil || !addr.Unmap().IsLoopback() {
				t.Errorf("the Host %q counts as loopback", host)
			}
		}
		u, err := url.Parse(origin)
		if loopback.classifyOrigin(r) == ownOrigin && (err != nil || !strings.EqualFold(u.Hostname(), hostname(host))) {
			t.Errorf("%q counts as a page of %q", origin, host)
		}
		if public.classifyOrigin(r) == allowedOrigin && origin != "https://app.example" {
			t.Errorf("%q is allowed", origin)
		}
	})
}

// The client's address is the peer's or one from the header. An untrusted peer's header
// is ignored.
func FuzzForwardedFor(f *testing.F) {
	for _, chain := range []string{"192.0.2.7", "127.0.0.1, 192.0.2.7", "unknown", "", ",", " , ,", "[2001:db8::1]:80", "10.0.0.1,10.0.0.2", "::1%eth0", "192.0.2.7:99999"} {
		f.Add("127.0.0.1:5000", chain)
		f.Add("192.0.2.9:5000", chain)
	}
	s := &Gate{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f.Fuzz(func(t *testing.T, peer, chain string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = peer
		r.Header[forwardedFor] = []string{chain}
		got := s.dropUntrusted(r).RemoteAddr
		if got == peer {
			return
		}
		from, err := netip.ParseAddrPort(peer)
		if err != nil || !s.Trusts(from.Addr()) {
			t.Fatalf("%q is believed", peer)
		}
		if strings.HasPrefix(got, "unknown, ") {
			return
		}
		at, err := netip.ParseAddrPort(got)
		if err != nil {
			t.Fatalf("%q, %q: the client is %q, which is no address", peer, chain, got)
		}
		for hop := range strings.SplitSeq(chain, ",") {
			if addr, ok := parseHop(strings.TrimSpace(hop)); ok && addr == at.Addr() {
				return
			}
		}
		if at.Addr() != from.Addr() {
			t.Errorf("%q, %q: the client is %q, which no header names", peer, chain, got)
		}
	})
}
