package gate

import (
	"net"
	"net/netip"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// checkHost refuses a Host header that does not name this server. public means that the
// server listens beyond loopback. The check stops DNS rebinding: a web page whose own name
// resolves to our address would pass the check of its origin.
//
//   - Loopback names and the host of the public URL are always accepted.
//   - A server on loopback only (public is false) accepts no others.
//   - A public server with a public URL also accepts addresses and private names, which no
//     stranger can register.
//   - A public server without a public URL does not know its names and accepts all.
func (g *Gate) checkHost(host string, public bool) error {
	switch {
	case isLoopback(host) || g.PublicURL != nil && strings.EqualFold(hostname(host), g.PublicURL.Hostname()):
		return nil
	case g.PublicURL == nil && !public:
		return job.Errorf(job.Forbidden, "this server listens on loopback and is not %s: ask it as localhost or 127.0.0.1, or say in public_url how it is called", job.Quote(host))
	case g.PublicURL == nil || public && isPrivateName(hostname(host)):
		return nil
	default:
		return job.Errorf(job.Forbidden, "this server is not %s: ask it as %s", job.Quote(host), job.Quote(g.PublicURL.Host))
	}
}

// isPrivateName reports whether a host is an IP address, or a name that nobody can register
// in the public DNS: one without a dot, or under .local or .internal.
func isPrivateName(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name != "" && (!strings.Contains(name, ".") || strings.HasSuffix(name, ".local") || strings.HasSuffix(name, ".internal"))
}

// hostname returns a host without its port and the brackets of an IPv6 address.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// isLoopback reports whether a host, with or without a port, is a loopback address or
// localhost.
func isLoopback(host string) bool {
	name := hostname(host)
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}
