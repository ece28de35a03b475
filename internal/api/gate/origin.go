package gate

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// originClass classifies the Origin header of a request.
type originClass int

const (
	ownOrigin     originClass = iota // a page of this server, or a program, which sends no Origin
	allowedOrigin                    // a page of an origin in allowed_origins
	foreignOrigin                    // any other page
)

// classifyOrigin compares the Origin header with the request's Host, the public URL and the
// allowed origins.
func (g *Gate) classifyOrigin(r *http.Request) originClass {
	origins, ok := r.Header["Origin"]
	switch {
	case !ok:
		return ownOrigin
	case len(origins) != 1:
		return foreignOrigin
	case sameOrigin(origins[0], r.Host) || g.PublicURL != nil && origins[0] == OriginOf(g.PublicURL):
		return ownOrigin
	case slices.Contains(g.AllowedOrigins, "*") || slices.Contains(g.AllowedOrigins, origins[0]):
		return allowedOrigin
	default:
		return foreignOrigin
	}
}

// refuseOrigin refuses a page of another origin. It says what is missing: the origin in
// allowed_origins, a token, or both.
func refuseOrigin(r *http.Request, origin originClass, hasToken bool) error {
	const (
		needsOrigin = "name its origin in allowed_origins of the server's configuration"
		needsToken  = "a user's token of POST /v1/tokens, or the watch token of a job"
	)
	page := job.Quote(strings.Join(r.Header["Origin"], ", "))
	switch {
	case origin == allowedOrigin:
		return job.Errorf(job.Forbidden, "a web page of %s needs a token to use this server: %s; its origin is in allowed_origins", page, needsToken)
	case hasToken:
		return job.Errorf(job.Forbidden, "a web page of %s may not use this server: %s; it has a token", page, needsOrigin)
	default:
		return job.Errorf(job.Forbidden, "a web page of %s may not use this server: %s, and give it a token (%s)", page, needsOrigin, needsToken)
	}
}

// OriginOf returns the origin of a URL as browsers write it (RFC 6454, section 6.2): in
// lower case, without the default port of the scheme.
func OriginOf(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if port := u.Port(); port != "" && port == defaultPort(u.Scheme) {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return u.Scheme + "://" + host
}

func defaultPort(scheme string) string {
	return map[string]string{"http": "80", "https": "443"}[scheme]
}

// sameOrigin compares an origin with the Host header by host and port. A missing port is
// the default of the origin's scheme, not of ours: a proxy may have terminated TLS.
func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	port := defaultPort(u.Scheme)
	return port != "" && strings.EqualFold(u.Hostname(), hostname(host)) && strings.EqualFold(withPort(u.Host, port), withPort(host, port))
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}
