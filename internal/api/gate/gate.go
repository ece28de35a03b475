// Package gate decides which requests may come in, and in whose name. It checks the Host
// header, the origin of web pages, the headers of trusted proxies, and tokens. It
// keeps web pages of other origins away from a loopback server that asks for no credentials.
//
// The package knows no route of any API. An API registers the routes that a token opens
// with [AllowToken] and [AllowUser].
package gate

import (
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Gate admits or refuses requests. Its fields are set before the first request and never
// change. A nil *Gate gives no watch URLs and accepts no tokens.
type Gate struct {
	// Listen has the hosts that the server listens on, with or without ports. An empty or
	// unspecified host is not loopback.
	Listen         []string
	PublicURL      *url.URL       // where browsers reach the server; nil: at the Host of each request
	AllowedHosts   []string       // more host names of the server, without ports, in lower case; "*" for any
	AllowedOrigins []string       // origins of pages that may use the server with a token; "*" for all
	TrustedProxies []netip.Prefix // peers that may name the client, in addition to loopback
	Tokens         *Tokens        // nil: no token is given or accepted
	TokenTTL       time.Duration  // lifetime of watch tokens where the submitter named none
	Timeouts       api.Timeouts   // of clients
	Bodies         *api.Bodies    // bounds the bodies in flight; nil: no bound
	Log            *slog.Logger   // nil: silent
}

// Handler serves the mux behind the middleware that all APIs share: request ids, deadlines
// for clients, and the gate. It registers "/" on the mux for unknown paths, so no API may.
func (g *Gate) Handler(mux *http.ServeMux) http.Handler {
	api.HandleUnknown(mux)
	return g.Timeouts.BoundResponses(g.Timeouts.BoundBodies(g.Bodies, api.RequestID(g.guard(mux))))
}

// guard admits requests and passes them to the mux. Handlers behind it may trust the
// headers and the address of a request, and never see a token.
func (g *Gate) guard(mux *http.ServeMux) http.Handler {
	hosts := g.newHostCheck()
	warn := &userWarning{log: g.Log}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// This comes first, because the checks below read these headers.
		believed := g.dropUntrusted(r)
		warn.check(r, believed)
		r = believed
		err := hosts.check(r.Host)
		if err != nil && answersAnyHost(mux, r) {
			err = nil
		}
		if err == nil {
			err = checkSingle(r)
		}
		if err != nil {
			refuse(mux, w, r, err)
			return
		}
		origin := g.classifyOrigin(r)
		if len(g.AllowedOrigins) > 0 || origin == foreignOrigin {
			w.Header().Add("Vary", "Origin")
		}
		if origin != ownOrigin {
			// Before admit, so that the page and the browser's console can show why it was refused.
			// A foreign origin learns nothing else: admit refuses all of its requests.
			allowOrigin(w.Header(), r)
			if isPreflight(r) {
				writePreflight(w)
				return
			}
		}
		admitted, err := g.admit(mux, r, origin)
		if err != nil {
			refuse(mux, w, r, err)
			return
		}
		api.SetCaller(admitted, CallerOf(admitted))
		api.Dispatch(mux, w, admitted)
	})
}

// refuse writes an error in the format of the API that the request is for.
func refuse(mux *http.ServeMux, w http.ResponseWriter, r *http.Request, err error) {
	h, _ := mux.Handler(r)
	api.ErrorWriterOf(h)(w, err)
}

// admit checks the origin and the credentials of a request. It returns the request in the
// name of its user.
func (g *Gate) admit(mux *http.ServeMux, r *http.Request, origin originClass) (*http.Request, error) {
	token, ok := tokenOf(r)
	if origin == foreignOrigin || origin == allowedOrigin && !ok {
		return nil, refuseOrigin(r, origin, ok)
	}
	if ok {
		return g.redeem(mux, r, token)
	}
	if isForeignWrite(r) {
		return nil, errForeignWrite
	}
	if !ValidUser(api.Header(r, userHeader)) {
		return nil, job.Errorf(job.Invalid, "X-User-ID must be printable text of at most %d bytes", maxUser)
	}
	return r, nil
}

// WatchURL returns a URL with a token for the grant; it needs no other credential. Its path
// is the id of the grant's job between before and after. A zero Expires means [Gate.TokenTTL]
// from now. The URL is absolute where the server knows its own address, else a path.
//
// WatchURL returns "" where the gate has no Tokens. It also returns "" to a request that
// came with a watch token, because a token must not extend its own life. To a request with a
// user's token it gives a URL that does not outlive that token.
func (g *Gate) WatchURL(r *http.Request, grant Grant, before, after string) string {
	if g == nil || g.Tokens == nil {
		return ""
	}
	own, ok := GrantOf(r)
	if ok && !own.IsUser() {
		return ""
	}
	if grant.Expires.IsZero() {
		grant.Expires = g.Tokens.now().Add(g.TokenTTL)
	}
	if ok && own.Expires.Before(grant.Expires) {
		grant.Expires = own.Expires
	}
	url := append(make([]byte, 0, 256), g.baseURL(r)...)
	url = grant.Job.Append(append(url, before...))
	return string(g.Tokens.Seal(append(append(url, after...), "?token="...), grant))
}

// baseURL returns the scheme and host that browsers use, or "" where they are unknown. The
// Host header counts only where it is loopback: any other may not be the public address.
func (g *Gate) baseURL(r *http.Request) string {
	switch {
	case g.PublicURL != nil:
		return strings.TrimSuffix(g.PublicURL.String(), "/")
	case !isLoopback(r.Host):
		return ""
	case r.TLS != nil || api.Header(r, forwardedProto) == "https":
		return "https://" + r.Host
	default:
		return "http://" + r.Host
	}
}
