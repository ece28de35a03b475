// Package gate decides who may make a request, and as whom: it knows the hosts that the
// server is reached by, the origins of web pages, the proxies that are believed, and
// watch tokens. It keeps pages of other origins away from an open loopback server.
//
// It knows no route of any API. An API says what a token opens where it registers the
// route; see [ByToken].
package gate

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Gate lets requests in. It is set once and used by all requests.
type Gate struct {
	Listen         []string       // hosts, with or without ports; an empty or unspecified one is beyond loopback
	PublicURL      *url.URL       // how browsers reach the server; nil: by the address that it is asked by
	AllowedOrigins []string       // of pages that may follow jobs; "*" for all
	TrustedProxies []netip.Prefix // believed, beside loopback, about who asks
	Tokens         *Tokens        // nil: no watch token is given or taken
	TokenTTL       time.Duration  // of tokens whose submitter asked for no other
	Timeouts       api.Timeouts   // of clients
}

// Handler is the mux behind all that its APIs share: request ids, the time that a client
// may take, the gate, and an answer to what the mux does not know. It registers "/" on
// the mux, so nobody else may.
func (g *Gate) Handler(mux *http.ServeMux) http.Handler {
	api.HandleUnknown(mux)
	return g.Timeouts.BoundResponses(g.Timeouts.BoundBodies(api.RequestID(g.guard(mux))))
}

// guard lets in requests that may come in, in the name of who makes them: what follows
// believes the request's headers and its address, and no token stands in it any more.
func (g *Gate) guard(mux *http.ServeMux) http.Handler {
	beyond := g.beyondLoopback()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = g.believe(r)
		if err := g.checkHost(r.Host, beyond); err != nil {
			refuse(mux, w, r, err)
			return
		}
		from := g.pageOf(r)
		if len(g.AllowedOrigins) > 0 {
			w.Header().Add("Vary", "Origin")
		}
		if from == allowedPage {
			allowOrigin(w.Header(), r)
			if isPreflight(r) {
				answerPreflight(w)
				return
			}
		}
		admitted, err := g.admit(mux, r, from)
		if err != nil {
			refuse(mux, w, r, err)
			return
		}
		api.Dispatch(mux, w, admitted)
	})
}

// refuse answers as the API would that the request was meant for.
func refuse(mux *http.ServeMux, w http.ResponseWriter, r *http.Request, err error) {
	h, _ := mux.Handler(r)
	api.ErrorWriterOf(h)(w, err)
}

// admit finds out who makes a request, and refuses who may not.
func (g *Gate) admit(mux *http.ServeMux, r *http.Request, from page) (*http.Request, error) {
	if from == foreignPage {
		return nil, job.Errorf(job.Forbidden, "a web page of %s may not use this server; allowed_origins in its configuration names those that may follow jobs", job.Quote(strings.Join(r.Header["Origin"], ", ")))
	}
	token, bearer := tokenOf(r)
	if !bearer && from == allowedPage {
		return nil, job.Errorf(job.Forbidden, "a web page of %s may follow a job by its watch token, and do nothing else", job.Quote(api.Header(r, "Origin")))
	}
	if bearer {
		return g.redeem(mux, r, token)
	}
	if !validUser(api.Header(r, userHeader)) {
		return nil, job.Errorf(job.Invalid, "X-User-ID must be printable text of at most %d bytes", maxUser)
	}
	return r, nil
}

// WatchURL is a URL that needs no other credential than the token in it, for as long as
// the grant says, or for the usual time where it says nothing. Its path is the id of the
// grant's job between before and after. It is absolute where the server knows how
// browsers call it, else a path. It is "" where no tokens are given, and for a request
// that came with a token: a token is not to outlive itself by asking.
func (g *Gate) WatchURL(r *http.Request, grant Grant, before, after string) string {
	if g == nil || g.Tokens == nil {
		return ""
	}
	if _, bearer := GrantOf(r); bearer {
		return ""
	}
	if grant.Expires.IsZero() {
		grant.Expires = g.Tokens.now().Add(g.TokenTTL)
	}
	url := append(make([]byte, 0, 256), g.base(r)...)
	url = grant.Job.Append(append(url, before...))
	return string(g.Tokens.Seal(append(append(url, after...), "?token="...), grant))
}

// base is what the path of an absolute URL is put behind, or "".
func (g *Gate) base(r *http.Request) string {
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
