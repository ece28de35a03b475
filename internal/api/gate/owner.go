package gate

import (
	"net/netip"
	"unicode"
	"unicode/utf8"
)

const (
	userHeader = "X-User-Id" // as net/http spells X-User-ID
	localUser  = "local"
	maxUser    = 128 // bytes
)

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
