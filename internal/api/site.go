package api

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Site is where a server stands: where it listens, how browsers call it, and whom
// it believes. It is set once and used by all requests.
type Site struct {
	Listen         []string       // hosts, with or without ports; an empty or unspecified one is beyond loopback
	PublicURL      *url.URL       // how browsers reach the server; nil: by the address that it is asked by
	AllowedOrigins []string       // of pages that may follow jobs; "*" for all
	TrustedProxies []netip.Prefix // believed, beside loopback, about who asks
	Tokens         *Tokens        // nil: no watch token is given or taken
	TokenLife      time.Duration  // of tokens whose submitter asked for no other
	Timeouts       Timeouts       // of clients
}

// Front is what every face stands behind: request ids, the time that a client may
// take, the guard, watch tokens, and problems for what the mux does not know. It
// registers "/" on the mux, so nobody else may.
func (s *Site) Front(mux *http.ServeMux) http.Handler {
	HandleUnknown(mux)
	return s.Timeouts.BoundAnswers(s.Timeouts.BoundBodies(Identify(s.guard(mux))))
}

// guard lets in who may come in, as who they are: what follows believes the
// request's headers and its address, and no token stands in it any more.
func (s *Site) guard(mux *http.ServeMux) http.Handler {
	beyond := s.beyondLoopback()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = s.believe(r)
		if err := s.checkHost(r.Host, beyond); err != nil {
			WriteError(w, err)
			return
		}
		from := s.pageOf(r)
		if len(s.AllowedOrigins) > 0 {
			w.Header().Add("Vary", "Origin")
		}
		if from == friend {
			allowOrigin(w.Header(), r)
			if isPreflight(r) {
				answerPreflight(w)
				return
			}
		}
		r, err := s.admit(mux, r, from)
		if err != nil {
			WriteError(w, err)
			return
		}
		route(mux, w, r)
	})
}

// admit says who asks, and refuses who may not.
func (s *Site) admit(mux *http.ServeMux, r *http.Request, from page) (*http.Request, error) {
	if from == stranger {
		return nil, job.Errorf(job.Forbidden, "a web page of %s may not use this server; allowed_origins in its configuration names those that may follow jobs", job.Quote(strings.Join(r.Header["Origin"], ", ")))
	}
	token, bearer := tokenOf(r)
	if !bearer && from == friend {
		return nil, job.Errorf(job.Forbidden, "a web page of %s may follow a job by its watch token, and do nothing else", job.Quote(header(r, "Origin")))
	}
	if bearer {
		return s.redeem(mux, r, token)
	}
	if !validUser(header(r, userHeader)) {
		return nil, job.Errorf(job.Invalid, "X-User-ID must be printable text of at most %d bytes", maxUser)
	}
	return r, nil
}

// WatchURL is where whoever holds it follows a job with no other credential: as the
// grant says, for as long as it says, or for the usual time where it says nothing.
// It is absolute where the server knows how browsers call it, else a path. It is ""
// where no tokens are given, and for a request that has only a token itself, which
// is not to outlive itself by asking.
func (s *Site) WatchURL(r *http.Request, g Grant) string {
	if s == nil || s.Tokens == nil {
		return ""
	}
	if _, bearer := GrantOf(r); bearer {
		return ""
	}
	if g.Expires.IsZero() {
		g.Expires = s.Tokens.now().Add(s.TokenLife)
	}
	url := append(make([]byte, 0, 256), s.base(r)...)
	url = g.Job.Append(append(url, "/v1/jobs/"...))
	return string(s.Tokens.Seal(append(url, "/events?token="...), g))
}

// base is what the path of an absolute URL is put behind, or "".
func (s *Site) base(r *http.Request) string {
	switch {
	case s.PublicURL != nil:
		return strings.TrimSuffix(s.PublicURL.String(), "/")
	case !isLoopback(r.Host):
		return ""
	case r.TLS != nil || header(r, forwardedProto) == "https":
		return "https://" + r.Host
	default:
		return "http://" + r.Host
	}
}
