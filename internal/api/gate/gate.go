// Package gate decides which requests may come in, and in whose name. It checks the Host
// header, the origin of web pages, the headers of trusted proxies, and tokens. It
// keeps web pages of other origins away from a loopback server that asks for no credentials.
//
// A request behind the gate has a [Caller]. The package knows no route of any API: an API says with
// a [Need] who may use a route when it registers it, and cannot register one without.
package gate

import (
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
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
	Keys           access.Keys    // nil: the server never has keys
	TokenTTL       time.Duration  // lifetime of watch tokens where the submitter named none
	Timeouts       api.Timeouts   // of clients
	Bodies         *api.Bodies    // bounds the bodies in flight; nil: no bound
	Log            *slog.Logger   // nil: silent
}

// Handler serves the mux behind the middleware that all APIs share: request ids, deadlines
// for clients, and the gate. It registers "/" on the mux for unknown paths, so no API may.
func (g *Gate) Handler(mux *Mux) http.Handler {
	api.HandleUnknown(mux.routes)
	guard := &guard{Gate: g, mux: mux, hosts: g.newHostCheck(), warn: userWarning{log: g.Log}}
	return g.Timeouts.BoundResponses(g.Timeouts.BoundBodies(g.Bodies, api.RequestID(guard)))
}

// guard admits requests and passes them to the mux, with their [Caller]. Handlers behind it may
// trust the headers and the address of a request, and never see a token.
type guard struct {
	*Gate
	// set once
	mux   *Mux
	hosts hostCheck

	warn     userWarning
	attempts attempts
	streams  streams
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user := api.Header(r, userHeader)
	// This comes first, because the checks below read these headers.
	believed := g.dropUntrusted(r)
	if !g.hasKeys() {
		g.warn.check(r, believed)
	}
	err := g.hosts.check(r.Host)
	if err != nil && g.mux.answersAnyHost(r) {
		err = nil
	}
	if err == nil {
		err = checkSingle(r)
	}
	r = believed
	if err != nil {
		g.mux.refuse(w, r, err)
		return
	}
	origin := g.classifyOrigin(r)
	if len(g.AllowedOrigins) > 0 || origin == foreignOrigin {
		w.Header().Add("Vary", "Origin")
	}
	if origin != ownOrigin {
		// Before identify, so that the page and the browser's console can show why it was refused.
		// A foreign origin learns nothing else: identify refuses all of its requests.
		allowOrigin(w.Header(), r)
		if isPreflight(r) {
			writePreflight(w)
			return
		}
	}
	caller, err := g.identify(r, user, origin)
	if err != nil {
		if job.CodeOf(err) == api.TooManyBadKeys {
			w.Header().Set("Connection", "close")
		}
		g.mux.refuse(w, r, err)
		return
	}
	if caller.grant != nil {
		r = withoutToken(r)
	}
	caller.setBudget(r)
	r = r.WithContext(callerContext{r.Context(), caller})
	api.SetCaller(r, caller.budget)
	api.Dispatch(g.mux.routes, w, r)
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
	own, ok := CallerFrom(r).Grant()
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
