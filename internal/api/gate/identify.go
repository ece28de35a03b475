package gate

import (
	"net/http"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const tenantHeader = "X-Tenant"

// identify checks the origin and the credentials of a request, and returns its caller. user is
// the X-User-ID of the request, whether or not its peer is trusted.
func (g *guard) identify(r *http.Request, user string, origin originClass) (*Caller, error) {
	if hasKeyInURL(r) {
		return nil, errKeyInURL
	}
	token, hasToken := tokenOf(r)
	key, hasKey := keyOf(r)
	hasBoth := hasToken && hasKey
	if origin == foreignOrigin || origin == allowedOrigin && !hasToken && !hasKey {
		return nil, refuseOrigin(r, origin, hasToken || hasKey)
	}
	switch {
	case hasBoth:
		return nil, job.Errorf(job.Invalid, "the request has a key and a token: send one of them")
	case hasToken:
		return g.callerOfToken(token)
	case hasKey:
		return g.callerOfKey(r, key, user)
	case isForeignWrite(r):
		return nil, errForeignWrite
	}
	return g.callerWithoutKey(r)
}

// callerWithoutKey returns the caller of a request without credentials. While the server has no
// keys, or where a program around the server vouches for the request, it has every scope.
func (g *guard) callerWithoutKey(r *http.Request) (*Caller, error) {
	vouched := isVouched(r)
	if g.hasKeys() && !vouched {
		return &Caller{guard: g, owner: job.Owner{User: localUser}, view: job.Owner{User: localUser}, anonymous: true}, nil
	}
	user := api.Header(r, userHeader)
	if !ValidUser(user) {
		return nil, errUserName
	}
	if user == "" {
		user = localUser
	}
	owner := job.Owner{User: user}
	return &Caller{guard: g, owner: owner, view: owner, scopes: access.AllScopes, vouched: vouched, speaks: maySpeakForUsers(r)}, nil
}

// hasKeys reports whether requests need a key.
func (g *Gate) hasKeys() bool { return g.Keys != nil && g.Keys.On() }

// callerOfKey checks a key, and returns its caller. Only a request with the right secret learns that
// its key is revoked or has expired.
func (g *guard) callerOfKey(r *http.Request, text, user string) (*Caller, error) {
	key := g.findKey(text)
	if key == nil {
		return nil, g.attempts.refuse(clientOf(r))
	}
	if err := checkState(key, g.Keys.Now()); err != nil {
		return nil, err
	}
	c := &Caller{guard: g, key: key, scopes: key.Scopes, owner: job.Owner{Tenant: key.Tenant, User: localUser}}
	if name := api.Header(r, tenantHeader); name != "" {
		if err := c.setTenant(name); err != nil {
			return nil, err
		}
	}
	switch {
	case !key.ActAs && user != "":
		return nil, job.Errorf(job.Forbidden, "this key does not act as users, so X-User-ID is not believed: leave it out, or use a key that was made with act_as")
	case !key.ActAs:
		c.view = job.WholeTenant(c.owner.Tenant)
		return c, nil
	case !ValidUser(user):
		return nil, errUserName
	case user != "":
		c.owner.User = user
	}
	c.view = c.owner
	return c, nil
}

// findKey returns the key of a text; nil for one that is not a key of this server.
func (g *guard) findKey(text string) *access.Key {
	id, secret, ok := access.ParseKeyText(text)
	if !ok || g.Keys == nil {
		return nil
	}
	key, ok := g.Keys.Find(id)
	if !ok || !key.Matches(secret) {
		return nil
	}
	return key
}

// setTenant makes the caller one of the tenant that X-Tenant names.
func (c *Caller) setTenant(name string) error {
	id, err := access.ParseTenant(name)
	switch {
	case err != nil:
		return job.Errorf(job.Invalid, "X-Tenant is no name of a tenant: %s", job.Quote(name))
	case id == c.key.Tenant:
		return nil
	case !c.scopes.Allow(access.Admin):
		return job.Errorf(job.Forbidden, "X-Tenant names another tenant, which needs a key with the scope admin")
	case c.guard.Keys.Tenant(id) == nil:
		return job.Errorf(job.NotFound, "there is no tenant %s", job.Quote(name))
	}
	c.owner.Tenant = id
	return nil
}

// callerOfToken opens a token, and returns its caller.
func (g *guard) callerOfToken(token string) (*Caller, error) {
	grant, err := g.OpenToken(token)
	if err != nil {
		return nil, err
	}
	c := &Caller{guard: g, owner: grant.Owner, view: grant.Owner, grant: &grant, scopes: access.Read}
	switch {
	case grant.IsUser():
		c.scopes = UserScopes
	case grant.Rights&MayCancel != 0:
		c.scopes |= access.Cancel
	}
	return c, c.keyEnded()
}

// CallerOfToken returns the caller of a token in a message of a socket.
func (c *Caller) CallerOfToken(token string) (*Caller, error) {
	other, err := c.guard.callerOfToken(token)
	if err != nil {
		return nil, err
	}
	other.budget = c.budget
	return other, nil
}

// UserScopes are the scopes of a user's token. A key must have them all to make one.
const UserScopes = access.Submit | access.Read | access.Cancel

// keyOf returns the key in a request's Authorization: Bearer.
func keyOf(r *http.Request) (text string, ok bool) {
	scheme, value, _ := strings.Cut(api.Header(r, "Authorization"), " ")
	value = strings.TrimLeft(value, " ")
	return value, strings.HasPrefix(value, access.KeyPrefix) && strings.EqualFold(scheme, "Bearer")
}

// hasKeyInURL reports whether the URL of a request contains what may be a key. Proxies and
// browsers keep URLs, so it must not pass as if that were safe.
func hasKeyInURL(r *http.Request) bool {
	return containsKey(r.URL.RawQuery) || containsKey(r.URL.Path)
}

func containsKey(text string) bool {
	const size = len(access.KeyPrefix) + access.KeyIDSize
	for {
		i := strings.Index(text, access.KeyPrefix)
		if i < 0 || len(text)-i <= size {
			return false
		}
		if text[i+size] == '_' && access.ValidKeyID(text[i+len(access.KeyPrefix):i+size]) {
			return true
		}
		text = text[i+len(access.KeyPrefix):]
	}
}

var (
	errNoKey    = job.Errorf(api.KeyRequired, "this server asks for a key: send Authorization: Bearer mw_…; meanwhile key create makes one")
	errBadKey   = job.Errorf(api.BadKey, "this is not a key of this server")
	errKeyInURL = job.Errorf(api.KeyInURL, "there is a key in the URL, where proxies and logs keep it: send it as Authorization: Bearer, and rotate it, because others may have seen it")
	errUserName = job.Errorf(job.Invalid, "X-User-ID must be printable text of at most %d bytes", maxUser)
	errNoTokens = badToken("this server has no tokens")
)
