package api

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func (s *Site) beyondLoopback() bool {
	return slices.ContainsFunc(s.Listen, func(host string) bool { return !isLoopback(host) })
}

// checkHost refuses a Host that is not ours, so that no page gets around the check
// of its origin by having a name of its own resolve to our address. While every
// host listened on is loopback, ours are loopback names and the public URL's; beyond
// loopback, once there is a public URL, also addresses and the names that no
// stranger can have. Beyond loopback without a public URL nobody knows our names,
// and any is taken.
func (s *Site) checkHost(host string, beyond bool) error {
	switch {
	case isLoopback(host) || s.PublicURL != nil && strings.EqualFold(nameOf(host), s.PublicURL.Hostname()):
		return nil
	case s.PublicURL == nil && !beyond:
		return job.Errorf(job.Forbidden, "this server listens on loopback and is not %s: ask it as localhost or 127.0.0.1, or say in public_url how it is called", job.Quote(host))
	case s.PublicURL == nil || beyond && isPrivateName(nameOf(host)):
		return nil
	default:
		return job.Errorf(job.Forbidden, "this server is not %s: ask it as %s", job.Quote(host), job.Quote(s.PublicURL.Host))
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

// page is what a request's Origin says of the web page behind it.
type page int

const (
	ours     page = iota // a page of this server, or a program: there is no Origin
	friend               // a page that allowed_origins names
	stranger             // any other
)

// pageOf compares the Origin with the host and port that the request was sent to,
// with the public URL, and with who is allowed.
func (s *Site) pageOf(r *http.Request) page {
	origins, ok := r.Header["Origin"]
	switch {
	case !ok:
		return ours
	case len(origins) != 1:
		return stranger
	case sameOrigin(origins[0], r.Host) || s.PublicURL != nil && origins[0] == OriginOf(s.PublicURL):
		return ours
	case slices.Contains(s.AllowedOrigins, "*") || slices.Contains(s.AllowedOrigins, origins[0]):
		return friend
	default:
		return stranger
	}
}

// OriginOf is the origin of a URL as browsers write it (RFC 6454, section 6.2): in
// lower case, without the scheme's own port.
func OriginOf(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if port := u.Port(); port != "" && port == portOf(u.Scheme) {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return u.Scheme + "://" + host
}

func portOf(scheme string) string {
	return map[string]string{"http": "80", "https": "443"}[scheme]
}

// sameOrigin compares the host and the port; a port left out is the one of the
// origin's scheme, because a proxy may have taken TLS off.
func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	port := portOf(u.Scheme)
	return port != "" && strings.EqualFold(u.Hostname(), nameOf(host)) && strings.EqualFold(withPort(u.Host, port), withPort(host, port))
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
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
