package gate

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Caller is who makes a request: a tenant, a user, and what the key or token of the request
// allows. Only the gate makes one. A handler gets it with [CallerFrom], and reads and changes jobs
// with its owners alone.
type Caller struct {
	guard  *guard
	owner  job.Owner
	view   job.Owner
	scopes access.Scopes
	key    *access.Key // nil without a key
	grant  *Grant      // of the token; nil without one

	anonymous bool // the server has keys, and the request has no key and no token
	vouched   bool // a program around the server has admitted the request, whatever keys there are
	speaks    bool // without a key: the peer may name users
	budget    api.Caller
}

type callerKey struct{}

// callerContext is a request's context with its caller.
type callerContext struct {
	context.Context //nolint:containedctx // it is a context
	caller          *Caller
}

func (c callerContext) Value(key any) any {
	if key == (callerKey{}) {
		return c.caller
	}
	return c.Context.Value(key)
}

// CallerFrom returns the caller of a request. It panics, which answers 500, for a request that
// came around the gate.
func CallerFrom(r *http.Request) *Caller {
	c, ok := r.Context().Value(callerKey{}).(*Caller)
	if !ok {
		panic("gate: a request came around the gate")
	}
	return c
}

// Owner returns the owner of what the caller makes: jobs and conversations.
func (c *Caller) Owner() job.Owner { return c.owner }

// View returns the owner of the jobs that the caller reads and changes: its user, or
// [job.WholeTenant] for a key that reads its whole tenant.
func (c *Caller) View() job.Owner { return c.view }

// Can reports whether the caller has all scopes of a set.
func (c *Caller) Can(s access.Scopes) bool { return c.scopes.Allow(s) }

// Require returns [api.ScopeMissing] unless the caller has all scopes of a set.
func (c *Caller) Require(s access.Scopes) error {
	if c.scopes.Allow(s) {
		return nil
	}
	if c.grant != nil && !c.grant.IsUser() {
		return errOnlyReads
	}
	return missingScope(s, "the scope")
}

// Grant returns what the caller's token grants; false for a caller without a token.
func (c *Caller) Grant() (Grant, bool) {
	if c.grant == nil {
		return Grant{}, false
	}
	return *c.grant, true
}

// CheckJob returns [job.NotFound] for any job but that of the caller's watch token.
func (c *Caller) CheckJob(id job.ID) error {
	if c.grant == nil {
		return nil
	}
	return c.grant.CheckJob(id)
}

// CheckQueue returns [job.Forbidden] for a queue to which the caller's key or token does not
// submit.
func (c *Caller) CheckQueue(queue string) error {
	if c.grant != nil && !c.grant.allowsQueue(queue) {
		return job.Errorf(job.Forbidden, "this user's token submits no jobs to the queue %s", job.Quote(queue))
	}
	return c.CheckKeyQueue(queue)
}

// CheckKeyQueue returns [job.Forbidden] for a queue to which the caller's key does not submit, or
// that with which its token was made.
func (c *Caller) CheckKeyQueue(queue string) error {
	key := c.key
	if c.grant != nil {
		key = c.keyOfToken()
	}
	if key != nil && !key.MaySubmitTo(queue) {
		return job.Errorf(job.Forbidden, "this key submits no jobs to the queue %s", job.Quote(queue))
	}
	return nil
}

// MaySpeakForUsers reports whether the caller may name its user, and so may get a token for one:
// with a key one that acts as users; without keys a program on this machine, a trusted proxy, or
// a program that embeds the server and uses [WithUser].
func (c *Caller) MaySpeakForUsers() bool {
	if c.key != nil {
		return c.key.ActAs
	}
	return c.speaks
}

// KeyID returns the id of the caller's key; "" for a caller without one.
func (c *Caller) KeyID() string {
	if c.key == nil {
		return ""
	}
	return c.key.ID
}

// SeesAllTenants reports whether the caller may know what other tenants have: counts of whole
// queues, and what holds them back.
func (c *Caller) SeesAllTenants() bool { return c.Can(access.Admin) }

// Budget returns for whom the bodies and uploads of the caller count.
func (c *Caller) Budget() api.Caller { return c.budget }

// BudgetOf returns the budget of a request's caller.
func BudgetOf(r *http.Request) api.Caller { return CallerFrom(r).budget }

// setBudget counts a caller that names its user for that user, a key for itself, and any other
// caller for its address.
func (c *Caller) setBudget(r *http.Request) {
	switch {
	case c.owner.User != localUser:
		c.budget = api.Caller{Tenant: c.owner.Tenant, User: c.owner.User}
	case c.key != nil:
		c.budget = api.Caller{Tenant: c.owner.Tenant, Key: c.key.ID}
	default:
		c.budget = api.Caller{Address: clientOf(r)}
	}
}

// clientOf returns the address of a request's client, without its port; of IPv6 its network.
func clientOf(r *http.Request) string {
	addr := r.RemoteAddr
	if peer, err := netip.ParseAddrPort(addr); err == nil && peer.Addr().Is6() {
		return ClientAddr(peer.Addr()).String()
	}
	if i := strings.LastIndexByte(addr, ':'); i >= 0 {
		addr = addr[:i]
	}
	return addr
}
