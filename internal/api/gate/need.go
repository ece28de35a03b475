package gate

import (
	"net/http"
	"net/netip"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Need says who may use a route. The zero value says nothing and is refused by [Mux.Handle].
//
// While a server has no keys, every caller without a token has every scope.
type Need struct {
	kind      needKind
	scopes    access.Scopes // a key needs all of them
	anyOf     access.Scopes // and one of these, if there are any
	onMachine bool          // without keys only programs on this machine meet it

	// Which tokens open the route.
	userToken, watchToken bool
	rights                Rights // what a watch token needs in addition to reading its job
	idParam               string // the wildcard of the pattern for the watch token's job, or ""
}

type needKind uint8

const (
	undecided needKind = iota
	anyone
	callers
)

// Anyone lets every request in: without a key, and with any Host header or none, as plain health
// checks send it. What the handler answers must be known to all.
func Anyone() Need { return Need{kind: anyone} }

// AnyCaller asks for any key.
func AnyCaller() Need { return Need{kind: callers} }

// Scope asks for all scopes of a set.
func Scope(s access.Scopes) Need { return Need{kind: callers, scopes: s} }

// AnyScope asks for one scope of a set. The handler checks the rest with [Caller.Require].
func AnyScope(s access.Scopes) Need { return Need{kind: callers, anyOf: s} }

// OnMachine also asks, while the server has no keys, that the request comes from the server's own
// machine. A proxy that names no client must not forward such a route, because its requests seem
// local.
func (n Need) OnMachine() Need { n.onMachine = true; return n }

// UserToken lets a user's token open the route, for what is the user's own.
func (n Need) UserToken() Need { n.userToken = true; return n }

// WatchToken lets users' tokens and watch tokens open the route. rights are what a watch token
// needs in addition to reading its job. idParam names the wildcard for the job's id in the route's
// pattern; any job but the watch token's is [job.NotFound]. A route without an id passes "", and
// its handler checks each job with [Caller.CheckJob].
func (n Need) WatchToken(rights Rights, idParam string) Need {
	n.userToken, n.watchToken, n.rights, n.idParam = true, true, rights, idParam
	return n
}

// check refuses a caller that does not meet the need.
func (n *Need) check(r *http.Request, c *Caller) error {
	switch {
	case c.grant != nil:
		return n.checkToken(r, c)
	case n.kind == anyone:
		return nil
	case c.anonymous:
		return errNoKey
	case n.onMachine && c.key == nil && !isFromMachine(r):
		return job.Errorf(job.Forbidden, "%s answers only programs on the server's own machine", job.Quote(r.URL.Path))
	}
	if err := c.Require(n.scopes); err != nil {
		return err
	}
	if n.anyOf != 0 && !allowsAny(c.scopes, n.anyOf) {
		return missingScope(n.anyOf, "one of the scopes")
	}
	return nil
}

// checkToken refuses a token that does not open the route, or not for this job.
func (n *Need) checkToken(r *http.Request, c *Caller) error {
	switch {
	case c.grant.IsUser() && !n.userToken:
		return job.Errorf(job.Forbidden, "a user's token does not open this call: with it the user asks, and watches, cancels and lists what is theirs")
	case c.grant.IsUser():
		return nil
	case !n.watchToken:
		return job.Errorf(job.Forbidden, "a watch token does not open this call: it opens a job, its output, events and result, its cancel where that was asked for, and /v1/watch")
	}
	if n.idParam != "" {
		id, err := job.ParseID(r.PathValue(n.idParam))
		if err == nil {
			err = c.CheckJob(id)
		}
		if err != nil {
			return err
		}
	}
	return c.grant.CheckRights(n.rights)
}

// isFromMachine reports whether a request comes from this machine. Its RemoteAddr is the client
// that a trusted proxy names.
func isFromMachine(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// allowsAny reports whether a set allows one scope of another.
func allowsAny(have, need access.Scopes) bool {
	for scope := access.Scopes(1); scope <= need; scope <<= 1 {
		if need&scope != 0 && have.Allow(scope) {
			return true
		}
	}
	return false
}

// missingScope refuses a key without scopes.
func missingScope(s access.Scopes, what string) error {
	return job.Errorf(api.ScopeMissing, "this key may not do that: it needs %s %s", what, s)
}
