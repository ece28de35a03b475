package netguard

import "net/netip"

// unwrap returns the IPv4 address inside an IPv6 address that is only another form of it: mapped
// (RFC 4291, section 2.5.5.2), or for a translator at the well-known prefix (RFC 6052), which is
// how a network without IPv4 reaches the public addresses of it. embedded is true for the latter.
// Any other address is returned as it is.
func unwrap(addr netip.Addr) (_ netip.Addr, embedded bool) {
	addr = addr.WithZone("").Unmap()
	if nat64.Contains(addr) {
		b := addr.As16()
		return netip.AddrFrom4([4]byte(b[12:])), true
	}
	return addr, false
}

var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// isPublic reports whether an unwrapped address is certainly one of the public internet. The lists
// are the special-purpose registries of IANA (RFC 6890), read strictly.
func isPublic(addr netip.Addr) bool {
	if addr.Is4() {
		return !containedIn(special4, addr)
	}
	// Of IPv6 only this part is given to the public internet. Outside of it are loopback,
	// unspecified, mapped and compatible addresses, the local use of NAT64 (64:ff9b:1::/48),
	// discard-only (100::/64), segment routing (5f00::/16), unique local (fc00::/7), link-local
	// (fe80::/10), site-local (fec0::/10) and multicast (ff00::/8).
	return globalUnicast.Contains(addr) && !containedIn(special6, addr) && !isISATAP(addr)
}

var globalUnicast = netip.MustParsePrefix("2000::/3")

var special4 = prefixes(
	"0.0.0.0/8",       // this network, and unspecified
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // shared, for carrier-grade NAT
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, with the metadata services
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // relays of 6to4
	"192.168.0.0/16",  // private
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, and broadcast
)

var special6 = prefixes(
	"2001::/23",     // protocol assignments: Teredo, benchmarks, ORCHID
	"2001:db8::/32", // documentation
	"2002::/16",     // 6to4, with an IPv4 address inside
	"3fff::/20",     // documentation
)

// isISATAP reports whether an address ends in an IPv4 address behind a tunnel (RFC 5214).
func isISATAP(addr netip.Addr) bool {
	b := addr.As16()
	return b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// isMetadata reports whether an unwrapped address is that of a cloud's metadata service, which
// gives the machine's credentials to whoever asks. No list may allow it.
func isMetadata(addr netip.Addr) bool { return containedIn(metadata, addr) }

var metadata = prefixes(
	"169.254.169.254/32",   // most clouds
	"169.254.170.2/32",     // tasks of Amazon ECS
	"169.254.170.23/32",    // pods of Amazon EKS
	"169.254.0.23/32",      // Tencent
	"169.254.42.42/32",     // Scaleway
	"100.100.100.200/32",   // Alibaba
	"168.63.129.16/32",     // Azure, a public address
	"192.0.0.192/32",       // Oracle, older machines
	"fd00:ec2::254/128",    // Amazon
	"fd00:ec2::23/128",     // pods of Amazon EKS
	"fd20:ce::254/128",     // Google
	"fd00:42::42/128",      // Scaleway
	"fe80::a9fe:a9fe/128",  // OpenStack
	"fd00:a9fe:a9fe::/128", // Akamai
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

func containedIn(list []netip.Prefix, addr netip.Addr) bool {
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// isWebPort reports whether a port may be asked on a public address: those of HTTP, and those that
// any program may listen on, except the ones that belong to another protocol (Fetch Standard,
// "bad port").
func isWebPort(port uint16) bool {
	switch port {
	case 80, 443:
		return true
	case 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080:
		return false
	}
	return port >= 1024
}
