package gate

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// OpenToken opens a token with [Tokens.Open]. It refuses every token where the gate
// has no Tokens.
func (g *Gate) OpenToken(token string) (Grant, error) {
	if g == nil || g.Tokens == nil {
		return Grant{}, errNoTokens
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

// allowsQueue reports whether a user's token may submit jobs to a queue.
func (g *Grant) allowsQueue(queue string) bool {
	return g.Queues == "" || slices.Contains(strings.Split(g.Queues, ","), queue)
}

// CheckRights returns [job.Forbidden] where the watch token lacks one of the rights.
func (g *Grant) CheckRights(rights Rights) error {
	if g.Rights&rights == rights || g.IsUser() {
		return nil
	}
	return errOnlyReads
}

var errOnlyReads = job.Errorf(job.Forbidden, "this watch token may read its job, not cancel it: a submit asks for that with Prefer: watch=cancel")

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

// withoutToken returns a copy of a request without its token, so that no later handler can log
// it. X-User-ID goes too: the token names the user.
func withoutToken(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
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
