package gate

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func (g *Gate) beyondLoopback() bool {
	return slices.ContainsFunc(g.Listen, func(host string) bool { return !isLoopback(host) })
}

// checkHost refuses a Host that is not ours, so that no page gets around the check
// of its origin by having a name of its own resolve to our address. While every
// host listened on is loopback, ours are loopback names and the public URL's; beyond
// loopback, once there is a public URL, also addresses and the names that no
// stranger can have. Beyond loopback without a public URL nobody knows our names,
// and any is taken.
func (g *Gate) checkHost(host string, beyond bool) error {
	switch {
	case isLoopback(host) || g.PublicURL != nil && strings.EqualFold(nameOf(host), g.PublicURL.Hostname()):
		return nil
	case g.PublicURL == nil && !beyond:
		return job.Errorf(job.Forbidden, "this server listens on loopback and is not %s: ask it as localhost or 127.0.0.1, or say in public_url how it is called", job.Quote(host))
	case g.PublicURL == nil || beyond && isPrivateName(nameOf(host)):
		return nil
	default:
		return job.Errorf(job.Forbidden, "this server is not %s: ask it as %s", job.Quote(host), job.Quote(g.PublicURL.Host))
	}
}

// isPrivateName says whether a host is an address, or a name that cannot be
// registered in the public DNS: without a dot, or under local or internal.
func isPrivateName(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name != "" && (!strings.Contains(name, ".") || strings.HasSuffix(name, ".local") || strings.HasSuffix(name, ".internal"))
}

// nameOf is a host without its port and the brackets of an IPv6 address.
func nameOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// isLoopback says whether a host, with or without a port, is this machine alone.
func isLoopback(host string) bool {
	name := nameOf(host)
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}
