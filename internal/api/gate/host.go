package gate

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// hostCheck decides which Host headers name this server. The check stops DNS rebinding: a
// web page whose own name resolves to our address would pass the check of its origin.
//
//   - Loopback names, the host of the public URL and the allowed hosts are always accepted.
//   - A server that listens beyond loopback also accepts addresses and private names, which
//     no stranger can register.
//   - Any other name is refused.
type hostCheck struct {
	// set once
	public  bool   // the server listens beyond loopback
	url     string // the host of the public URL, or ""
	allowed []string
}

func (g *Gate) newHostCheck() hostCheck {
	c := hostCheck{allowed: g.AllowedHosts}
	c.public = slices.ContainsFunc(g.Listen, func(host string) bool { return !isLoopback(host) })
	if g.PublicURL != nil {
		c.url = g.PublicURL.Host
	}
	return c
}

// CheckHosts refuses requests whose Host header does not name this server, for handlers
// that are not behind [Gate.Handler].
func (g *Gate) CheckHosts(next http.Handler) http.Handler {
	hosts := g.newHostCheck()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := hosts.check(r.Host); err != nil {
			api.WriteProblem(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (c hostCheck) check(host string) error {
	name := hostname(host)
	switch {
	case isLoopback(host) || c.public && isPrivateName(name) || c.isAllowed(name):
		return nil
	case c.url != "":
		return job.Errorf(job.Forbidden, "this server is not %s: ask it as %s, or add the name to allowed_hosts in its configuration", job.Quote(host), job.Quote(c.url))
	case c.public:
		return job.Errorf(job.Forbidden, "this server does not know that it is %s: ask it by its address, or add the name to allowed_hosts in its configuration", job.Quote(host))
	default:
		return job.Errorf(job.Forbidden, "this server listens on loopback and is not %s: ask it as localhost or 127.0.0.1, or add the name to allowed_hosts in its configuration", job.Quote(host))
	}
}

// isAllowed reports whether the configuration names the host.
func (c hostCheck) isAllowed(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if c.url != "" && strings.EqualFold(name, hostname(c.url)) {
		return true
	}
	return slices.ContainsFunc(c.allowed, func(allowed string) bool { return allowed == "*" || strings.EqualFold(name, allowed) })
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
