package gate

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// page is what a request's Origin says of the web page behind it.
type page int

const (
	ownPage     page = iota // a page of this server, or a program: there is no Origin
	allowedPage             // a page that allowed_origins names
	foreignPage             // any other
)

// pageOf compares the Origin with the host and port that the request was sent to,
// with the public URL, and with who is allowed.
func (g *Gate) pageOf(r *http.Request) page {
	origins, ok := r.Header["Origin"]
	switch {
	case !ok:
		return ownPage
	case len(origins) != 1:
		return foreignPage
	case sameOrigin(origins[0], r.Host) || g.PublicURL != nil && origins[0] == OriginOf(g.PublicURL):
		return ownPage
	case slices.Contains(g.AllowedOrigins, "*") || slices.Contains(g.AllowedOrigins, origins[0]):
		return allowedPage
	default:
		return foreignPage
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
