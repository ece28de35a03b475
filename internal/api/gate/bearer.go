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

// AllowToken lets requests with a token use a handler: a watch token, and a user's token for the
// user's own jobs. rights are the rights that a watch token needs in addition to reading its job.
// idParam names the wildcard for the job's id in the route's pattern; any job but the watch
// token's is [job.NotFound]. A route without an id passes "", and its handler checks each job
// with [Grant.CheckJob].
func AllowToken(rights Rights, idParam string, h http.Handler) http.Handler {
	return &tokenHandler{h, rights, idParam, false}
}

// AllowUser lets requests with a user's token use a handler, and none with a watch token.
func AllowUser(h http.Handler) http.Handler {
	return &tokenHandler{Handler: h, onlyUsers: true}
}

// tokenHandler is a handler that accepts tokens.
type tokenHandler struct {
	http.Handler
	rights    Rights
	idParam   string
	onlyUsers bool
}

func (h *tokenHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g, ok := GrantOf(r); ok && !g.IsUser() {
		if err := h.check(r, g); err != nil {
			h.WriteError(w, err)
			return
		}
	}
	h.Handler.ServeHTTP(w, r)
}

// check refuses a request that is not about the token's job or exceeds its rights.
func (h *tokenHandler) check(r *http.Request, g Grant) error {
	if h.idParam != "" {
		id, err := job.ParseID(r.PathValue(h.idParam))
		if err != nil {
			return err
		}
		if err := g.CheckJob(id); err != nil {
			return err
		}
	}
	return g.CheckRights(h.rights)
}

// WriteError writes an error in the format of the handler's API.
func (h *tokenHandler) WriteError(w http.ResponseWriter, err error) {
	api.ErrorWriterOf(h.Handler)(w, err)
}

type grantKey struct{}

// GrantOf returns what the request's token grants; false for a request without a
// token. [Gate.Handler] has checked the token, and [AllowToken] its job and rights.
func GrantOf(r *http.Request) (Grant, bool) {
	g, ok := r.Context().Value(grantKey{}).(Grant)
	return g, ok
}

// redeem opens the request's token. It returns a request in the name of the token's owner,
// without the token, so that no later handler can log it.
func (g *Gate) redeem(mux *http.ServeMux, r *http.Request, token string) (*http.Request, error) {
	grant, err := g.OpenToken(token)
	if err != nil {
		return nil, err
	}
	r = withGrant(r, grant)
	h, pattern := mux.Handler(r)
	if pattern == "/" {
		return r, nil // answers 404 or 405, which a token may see
	}
	allowed, ok := h.(*tokenHandler)
	switch {
	case ok && (grant.IsUser() || !allowed.onlyUsers):
		return r, nil
	case grant.IsUser():
		return nil, job.Errorf(job.Forbidden, "a user's token does not open this call: with it the user asks, and watches, cancels and lists what is theirs")
	default:
		return nil, job.Errorf(job.Forbidden, "a watch token does not open this call: it opens a job, its output, events and result, its cancel where that was asked for, and /v1/watch")
	}
}

// OpenToken opens a token with [Tokens.Open]. It refuses every token where the gate
// has no Tokens.
func (g *Gate) OpenToken(token string) (Grant, error) {
	if g == nil || g.Tokens == nil {
		return Grant{}, badToken("this server has no tokens")
	}
	return g.Tokens.Open(token)
}

// CheckJob returns [job.NotFound] for any job but the watch token's. Not [job.Forbidden]: the
// bearer must not learn which jobs exist.
func (g *Grant) CheckJob(id job.ID) error {
	if id == g.Job || g.IsUser() { // a user's token reads with its owner, which finds only that user's jobs
		return nil
	}
	return job.Errorf(job.NotFound, "there is no job %s", job.Quote(id.String()))
}

// CheckExpiry returns [job.BadToken] once the token has expired or its key was forgotten. A
// socket outlives the check that [Tokens.Open] makes.
func (g *Grant) CheckExpiry() error {
	if g.key != nil && g.key.forgotten.Load() {
		return errOfNoKey
	}
	if time.Now().Before(g.Expires) {
		return nil
	}
	return expiredToken(g)
}

// CheckRights returns [job.Forbidden] where the watch token lacks one of the rights.
func (g *Grant) CheckRights(rights Rights) error {
	if g.Rights&rights == rights || g.IsUser() {
		return nil
	}
	return job.Errorf(job.Forbidden, "this watch token may read its job, not cancel it: a submit asks for that with Prefer: watch=cancel")
}

// tokenOf returns the request's token. It comes in the parameter token, which an EventSource
// and a WebSocket can send, or in Authorization: Bearer. It joins several tokens to an invalid
// one, so that a request with two tokens is refused.
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
	scheme, value, _ := strings.Cut(api.Header(r, "Authorization"), " ")
	value = strings.TrimLeft(value, " ") // RFC 9110, section 11.4, allows several
	if strings.EqualFold(scheme, "Bearer") && (strings.HasPrefix(value, tokenPrefix) || strings.HasPrefix(value, userPrefix)) {
		token, ok = token+value, true
	}
	return token, ok
}

// withGrant returns a copy of the request with a grant and without its token. X-User-ID
// goes too: the grant names the user.
func withGrant(r *http.Request, g Grant) *http.Request {
	r = r.Clone(context.WithValue(r.Context(), grantKey{}, g))
	r.Header.Del("Authorization")
	r.Header.Del(userHeader)
	var others []string
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if name, _, _ := strings.Cut(pair, "="); name != "token" && pair != "" {
			others = append(others, pair)
		}
	}
	r.URL.RawQuery = strings.Join(others, "&")
	r.RequestURI = (&url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}).RequestURI()
	return r
}
