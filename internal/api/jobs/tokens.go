package jobs

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The lifetimes of users' tokens.
const (
	defaultTokenTTL  = 15 * time.Minute
	maxTokenTTL      = 24 * time.Hour
	defaultRenewable = 24 * time.Hour // from the first token to the last that comes of it
	maxRenewable     = 30 * 24 * time.Hour
	maxTokenQueues   = 16
	maxTokenBody     = 4 << 10
)

// tokenRequest is the body of POST /v1/tokens.
type tokenRequest struct {
	TTL       *float64 `json:"ttl_s"`
	Renewable *float64 `json:"renewable_s"`
	Queues    []string `json:"queues"` // where the token may submit jobs; empty: in all
}

// tokenView is the response to POST /v1/tokens.
type tokenView struct {
	Token          string    `json:"token"`
	User           string    `json:"user"`
	ExpiresAt      time.Time `json:"expires_at"`
	ExpiresIn      float64   `json:"expires_in_s"`
	RenewableUntil time.Time `json:"renewable_until"`
}

// createToken makes a user's token. A program that may speak for users gets one for the user of
// the request. A page gets another in exchange for its own, until that one's renewal ends.
func (a *API) createToken(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	var in tokenRequest
	body, err := api.ReadBody(r, maxTokenBody)
	if err == nil && len(body) > 0 {
		err = api.DecodeJSON(body, &in)
	}
	if err != nil {
		return err
	}
	ttl, err := readSpan("/ttl_s", in.TTL, defaultTokenTTL, maxTokenTTL)
	if err != nil {
		return err
	}
	if a.gate == nil || a.gate.Tokens == nil {
		return job.Errorf(job.Forbidden, "this server has no tokens")
	}
	now := time.Now()
	caller := gate.CallerFrom(r)
	g, renews := caller.Grant()
	if renews {
		if in.Renewable != nil || in.Queues != nil {
			return refuse("/renewable_s", "a token that comes of another one has its queues and the end of its renewal: only ttl_s is taken")
		}
	} else if g, err = a.newUserGrant(caller, &in, now); err != nil {
		return err
	}
	g.Expires = nextSecond(now.Add(ttl))
	if g.Expires.After(g.Renewable) {
		g.Expires = g.Renewable
	}
	w.Header().Set("Cache-Control", "no-store")
	api.WriteJSON(w, http.StatusCreated, tokenView{
		Token: string(a.gate.Tokens.Seal(nil, g)), User: g.Owner.User,
		ExpiresAt: g.Expires.UTC(), ExpiresIn: g.Expires.Sub(now).Seconds(), RenewableUntil: g.Renewable.UTC(),
	})
	return nil
}

// newUserGrant returns the grant of a first token, without its expiry.
func (a *API) newUserGrant(c *gate.Caller, in *tokenRequest, now time.Time) (gate.Grant, error) {
	if !c.MaySpeakForUsers() {
		return gate.Grant{}, job.Errorf(job.Forbidden, "a user's token is made for a program that may send X-User-ID: with a key that acts as users, or without keys on the server's machine or behind trusted_proxies; and in exchange for one that has not expired")
	}
	renewable, err := readSpan("/renewable_s", in.Renewable, defaultRenewable, maxRenewable)
	if err != nil {
		return gate.Grant{}, err
	}
	if len(in.Queues) > maxTokenQueues {
		return gate.Grant{}, refuse("/queues", "a token names at most %d queues", maxTokenQueues)
	}
	for _, name := range in.Queues {
		if err := c.CheckQueue(name); err != nil {
			return gate.Grant{}, err
		}
		if _, err := a.engine.Queue(name); err != nil {
			return gate.Grant{}, err
		}
	}
	slices.Sort(in.Queues)
	return gate.Grant{
		Owner: c.Owner(), Renewable: nextSecond(now.Add(renewable)),
		Queues: strings.Join(slices.Compact(in.Queues), ","), Key: c.KeyID(),
	}, nil
}

// readSpan returns a time of at least a second that a request may name.
func readSpan(field string, seconds *float64, byDefault, most time.Duration) (time.Duration, error) {
	if seconds == nil {
		return byDefault, nil
	}
	if !(*seconds >= 1 && *seconds <= most.Seconds()) {
		return 0, refuse(field, "this must be from 1 to %d seconds", int(most.Seconds()))
	}
	return time.Duration(*seconds * float64(time.Second)), nil
}

// nextSecond rounds a time up to a whole second, because a token has no others.
func nextSecond(t time.Time) time.Time { return t.Add(time.Second - 1).Truncate(time.Second) }

// claim makes a request one of a caller. It refuses a queue to which the caller does not submit. A
// request with a user's token takes turns under its user, whatever key and priority it names. It
// has no callback: a page must not make the server send requests.
func claim(c *gate.Caller, req *engine.Request) error {
	req.Owner = c.Owner()
	if _, ok := c.Grant(); ok {
		if req.Callback != nil {
			return job.Errorf(job.Forbidden, "a job that is submitted with a user's token has no callback of its own: leave callback out")
		}
		req.Key, req.Priority = req.Owner.User, 0
	}
	return c.CheckQueue(req.Queue)
}
