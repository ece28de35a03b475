package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// opens says whether a call, by its pattern, can be made with nothing but a watch
// token, and which right it takes beside reading. Any other is refused to a bearer.
func opens(pattern string) (right Rights, ok bool) {
	switch pattern {
	case "GET /v1/jobs/{id}", "GET /v1/jobs/{id}/output", "GET /v1/jobs/{id}/events", "GET /v1/jobs/{id}/result", "GET /v1/watch":
		return 0, true
	case "POST /v1/jobs/{id}/cancel":
		return MayCancel, true
	default:
		return 0, false
	}
}

type grantKey struct{}

// GrantOf is what the request's watch token grants; false where it came without
// one. What the token opens, and for which job, [Site.Front] has checked.
func GrantOf(r *http.Request) (Grant, bool) {
	g, ok := r.Context().Value(grantKey{}).(Grant)
	return g, ok
}

// redeem makes a request with a token the request of the token's owner, and takes
// the token out of it, so that nothing behind can log it.
func (s *Site) redeem(mux *http.ServeMux, r *http.Request, token string) (*http.Request, error) {
	g, err := s.OpenToken(token)
	if err != nil {
		return nil, err
	}
	r = withoutToken(r, g)
	_, pattern := mux.Handler(r)
	if pattern == "/" {
		return r, nil // nothing is there
	}
	right, ok := opens(pattern)
	if !ok {
		return nil, job.Errorf(job.Forbidden, "a watch token does not open this call: it opens a job, its output, events and result, its cancel where that was asked for, and /v1/watch")
	}
	if err := g.mayTouch(r.URL.Path); err != nil {
		return nil, err
	}
	return r, g.May(right)
}

// OpenToken is [Tokens.Open] of the site's tokens.
func (s *Site) OpenToken(token string) (Grant, error) {
	if s == nil || s.Tokens == nil {
		return Grant{}, badToken("this server has no watch tokens")
	}
	return s.Tokens.Open(token)
}

// mayTouch holds a token to its job.
func (g *Grant) mayTouch(path string) error {
	rest, ok := strings.CutPrefix(path, "/v1/jobs/")
	if !ok {
		return nil
	}
	text, _, _ := strings.Cut(rest, "/")
	id, err := job.ParseID(text)
	if err != nil {
		return err
	}
	return g.Of(id)
}

// Of refuses any job but the token's: to it that is not there.
func (g *Grant) Of(id job.ID) error {
	if id == g.Job {
		return nil
	}
	return job.Errorf(job.NotFound, "there is no job %s", job.Quote(id.String()))
}

// Current refuses a token that has expired since it was opened.
func (g *Grant) Current() error {
	if time.Now().Before(g.Expires) {
		return nil
	}
	return errExpired
}

// May refuses what the token has no right to.
func (g *Grant) May(right Rights) error {
	if g.Rights&right == right {
		return nil
	}
	return job.Errorf(job.Forbidden, "this watch token may read its job, not cancel it: a submit asks for that with Prefer: watch=cancel")
}

// tokenOf finds a request's token: the parameter token, which an EventSource and a
// WebSocket can send, or Authorization: Bearer. Of two, one is sure to be wrong.
func tokenOf(r *http.Request) (token string, ok bool) {
	rest := r.URL.RawQuery
	for rest != "" {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		name, value, _ := strings.Cut(pair, "=")
		if name != "token" {
			continue
		}
		token, ok = token+value, true
	}
	if scheme, value, _ := strings.Cut(header(r, "Authorization"), " "); strings.EqualFold(scheme, "Bearer") && strings.HasPrefix(value, tokenPrefix) {
		token, ok = token+value, true
	}
	return token, ok
}

// withoutToken is the request as its handler sees it.
func withoutToken(r *http.Request, g Grant) *http.Request {
	r = r.Clone(context.WithValue(r.Context(), grantKey{}, g))
	r.Header.Del("Authorization")
	r.Header.Del(userHeader)
	var kept []string
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if name, _, _ := strings.Cut(pair, "="); name != "token" && pair != "" {
			kept = append(kept, pair)
		}
	}
	r.URL.RawQuery = strings.Join(kept, "&")
	r.RequestURI = (&url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}).RequestURI()
	return r
}

// bearerChallenge is what a refusal with 401 has to say (RFC 6750, section 3). It is
// never changed.
var bearerChallenge = []string{`Bearer error="invalid_token"`}
