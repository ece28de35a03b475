package gate

import (
	"net/http"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	userHeader = "X-User-Id" // as net/http spells X-User-ID
	localUser  = "local"
	maxUser    = 128 // bytes
)

// Owner returns the owner in whose name a request is made: the owner in its token;
// else the user in X-User-ID; else the user "local". [Gate.Handler] has removed the header
// of untrusted peers. It has also refused malformed names, because "local" in their place
// would show one user the jobs of another.
func Owner(r *http.Request) job.Owner {
	if g, ok := GrantOf(r); ok {
		return g.Owner
	}
	user := api.Header(r, userHeader)
	if user == "" || !ValidUser(user) {
		user = localUser
	}
	return job.Owner{User: user}
}

// CallerOf returns for whom the bodies of a request count: its user, or the address of a
// client that names none.
func CallerOf(r *http.Request) api.Caller {
	if user := Owner(r).User; user != localUser {
		return api.Caller{User: user}
	}
	addr := r.RemoteAddr
	if peer, err := netip.ParseAddrPort(addr); err == nil && peer.Addr().Is6() {
		return api.Caller{Address: ClientAddr(peer.Addr()).String()}
	}
	if i := strings.LastIndexByte(addr, ':'); i >= 0 {
		addr = addr[:i] // without the port
	}
	return api.Caller{Address: addr}
}

// ClientAddr returns the address for which a client is counted: of IPv6 the /64 network, which
// one client has as a whole. All machines of a link share the network of its link-local
// addresses.
func ClientAddr(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() && !addr.IsLinkLocalUnicast() {
		network, _ := addr.Prefix(64) // 64 bits are valid for every IPv6 address
		addr = network.Addr()
	}
	return addr
}

// ValidUser reports whether a text may be the name of a user: at most 128 bytes, all printable.
func ValidUser(name string) bool {
	if len(name) > maxUser || !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
