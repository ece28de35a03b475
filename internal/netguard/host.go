package netguard

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// canonicalHost returns a host in lower case, without the dot at the end of a full name and
// without the brackets of an IPv6 address.
func canonicalHost(host string) string {
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// isHostName reports whether a text is a host name: labels of letters, digits, - and _. The last
// one is no number, because some resolvers take 127.1, 0x7f.1 and 2130706433 for addresses.
func isHostName(text string) bool {
	last := ""
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
		last = label
	}
	_, err := strconv.ParseUint(last, 0, 64)
	return err != nil && strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x") && len(text) <= 253
}

func isLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// portOf returns the port of a URL, which may be that of its scheme.
func portOf(u *url.URL) (uint16, error) {
	if u.Port() == "" {
		if u.Scheme == "http" {
			return 80, nil
		}
		return 443, nil
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 {
		return 0, errorf(BadURL, "the port in the URL must be 1 to 65535")
	}
	return uint16(port), nil
}

// Allow lists what may be reached although it is not public. Its zero value lists nothing.
// Metadata services are never allowed.
type Allow struct {
	networks []network
	hosts    []hostPort
}

type network struct {
	netip.Prefix
	port uint16 // 0 for any
}

type hostPort struct {
	host string
	port uint16 // 0 for any
}

// ParseAllow parses a list of networks (10.0.0.0/8), addresses (10.0.0.7, 10.0.0.7:8080,
// [fd00::7]:8080) and host names (hooks.internal, hooks.internal:8080). A host name is allowed
// whatever it resolves to. The error names the first item that is none of these.
func ParseAllow(items []string) (Allow, error) {
	var a Allow
	for _, item := range items {
		if p, err := netip.ParsePrefix(item); err == nil {
			a.networks = append(a.networks, network{unmapped(p), 0})
			continue
		}
		host, port := item, uint16(0)
		if _, err := netip.ParseAddr(item); err != nil {
			if at := strings.LastIndexByte(item, ':'); at >= 0 {
				n, err := strconv.ParseUint(item[at+1:], 10, 16)
				if err != nil || n == 0 {
					return Allow{}, badItem(item)
				}
				host, port = item[:at], uint16(n)
			}
		}
		host = canonicalHost(host)
		addr, err := netip.ParseAddr(host)
		switch {
		case err == nil && addr.Zone() == "":
			addr = addr.Unmap()
			a.networks = append(a.networks, network{netip.PrefixFrom(addr, addr.BitLen()), port})
		case isHostName(host):
			a.hosts = append(a.hosts, hostPort{host, port})
		default:
			return Allow{}, badItem(item)
		}
	}
	return a, nil
}

func badItem(item string) error {
	return errorf(BadURL, "this must be networks, addresses or host names, with or without a port, such as 10.0.0.0/8, 10.0.0.7:8080 or hooks.internal, not %s", strconv.Quote(item))
}

// unmapped returns the network of IPv4 that a network of mapped addresses stands for.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// host reports whether a name is listed.
func (a Allow) host(name string, port uint16) bool {
	for _, h := range a.hosts {
		if h.host == name && (h.port == 0 || h.port == port) {
			return true
		}
	}
	return false
}

// address reports whether an unwrapped address is listed.
func (a Allow) address(addr netip.Addr, port uint16) bool {
	for _, n := range a.networks {
		if n.Contains(addr) && (n.port == 0 || n.port == port) {
			return true
		}
	}
	return false
}
