package gate

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// ByToken makes a handler one that a watch token opens, with a right beside reading its
// job. inPath is the wildcard of the route's pattern that holds the job's id: to a token
// any other job is not there. "" is for a route without one, whose handler checks each
// job itself by [Grant.Of].
func AllowToken(right Rights, inPath string, h http.Handler) http.Handler {
	return &opened{h, right, inPath}
}

// opened is a handler that a watch token opens.
type opened struct {
	http.Handler
	right  Rights
	inPath string
}

func (o *opened) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g, bearer := GrantOf(r); bearer {
		if err := o.check(r, g); err != nil {
			o.WriteError(w, err)
			return
		}
	}
	o.Handler.ServeHTTP(w, r)
}

// check holds a token to its job and its rights.
func (o *opened) check(r *http.Request, g Grant) error {
	if o.inPath != "" {
		id, err := job.ParseID(r.PathValue(o.inPath))
		if err != nil {
			return err
		}
		if err := g.CheckJob(id); err != nil {
			return err
		}
	}
	return g.CheckRights(o.right)
}

// WriteError answers as the handler's API does.
func (o *opened) WriteError(w http.ResponseWriter, err error) { api.ErrorWriterOf(o.Handler)(w, err) }

type grantKey struct{}

// GrantOf is what the request's watch token grants; false where it came without
// one. What the token opens, and for which job, [Gate.Handler] has checked.
func GrantOf(r *http.Request) (Grant, bool) {
	g, ok := r.Context().Value(grantKey{}).(Grant)
	return g, ok
}

// redeem makes a request with a token the request of the token's owner, and takes
// the token out of it, so that nothing behind can log it.
func (g *Gate) redeem(mux *http.ServeMux, r *http.Request, token string) (*http.Request, error) {
	grant, err := g.OpenToken(token)
	if err != nil {
		return nil, err
	}
	r = withoutToken(r, grant)
	h, pattern := mux.Handler(r)
	if _, open := h.(*opened); !open && pattern != "/" { // there is nothing at "/"
		return nil, job.Errorf(job.Forbidden, "a watch token does not open this call: it opens a job, its output, events and result, its cancel where that was asked for, and /v1/watch")
	}
	return r, nil
}

// OpenToken is [Tokens.Open] of the gate's tokens.
func (g *Gate) OpenToken(token string) (Grant, error) {
	if g == nil || g.Tokens == nil {
		return Grant{}, badToken("this server has no watch tokens")
	}
	return g.Tokens.Open(token)
}

// Of refuses any job but the token's: to it that is not there.
func (g *Grant) CheckJob(id job.ID) error {
	if id == g.Job {
		return nil
	}
	return job.Errorf(job.NotFound, "there is no job %s", job.Quote(id.String()))
}

// Current refuses a token that has expired since it was opened.
func (g *Grant) CheckExpiry() error {
	if time.Now().Before(g.Expires) {
		return nil
	}
	return errExpired
}

// May refuses what the token has no right to.
func (g *Grant) CheckRights(right Rights) error {
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
	if scheme, value, _ := strings.Cut(api.Header(r, "Authorization"), " "); strings.EqualFold(scheme, "Bearer") && strings.HasPrefix(value, tokenPrefix) {
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
