package api

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Guard keeps web pages of other origins away. It refuses a request whose Origin
// is not the host and port that it is sent to, so that no page can drive a server
// that the reader's browser can reach; and, while every host listened on is
// loopback, one whose Host is no loopback name, so that no page gets around that by
// having its own name resolve to 127.0.0.1.
//
// The hosts may have ports. A host that is empty or unspecified listens beyond
// loopback: then any Host is taken.
func Guard(listenHosts ...string) func(http.Handler) http.Handler {
	open := false
	for _, h := range listenHosts {
		open = open || !isLoopback(h)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := foreign(r, open); err != nil {
				WriteError(w, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// foreign says why a request does not come from our own origin.
func foreign(r *http.Request, open bool) error {
	if !open && !isLoopback(r.Host) {
		return job.Errorf(job.Forbidden, "this server listens on loopback and is not %s: ask it as localhost or 127.0.0.1", job.Quote(r.Host))
	}
	origins, ok := r.Header["Origin"]
	if !ok {
		return nil
	}
	if len(origins) != 1 || !sameOrigin(origins[0], r.Host) {
		return job.Errorf(job.Forbidden, "a web page of %s may not use this server", job.Quote(strings.Join(origins, ", ")))
	}
	return nil
}

// sameOrigin compares the host and the port; a port left out is the one of the
// origin's scheme, because a proxy may have taken TLS off.
func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	return port != "" && strings.EqualFold(withPort(u.Host, port), withPort(host, port))
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// isLoopback says whether a host, with or without a port, is this machine alone.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}
