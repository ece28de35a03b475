package gate

import (
	"context"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// checkState returns [api.BadKey] for a key that is revoked or has expired.
func checkState(key *access.Key, now time.Time) error {
	switch key.State(now) {
	case access.Revoked:
		return job.Errorf(api.BadKey, "this key was revoked")
	case access.Expired:
		return job.Errorf(api.BadKey, "this key has expired")
	default:
		return nil
	}
}

// Check returns the error of a caller whose key has ended since the request was let in: it was
// revoked or has expired, or the server got its first key and the caller has none. A token ends by
// its own time, with the key that signs tokens, or with the API key that it was made with.
func (c *Caller) Check() error {
	if c.grant != nil {
		if err := c.grant.CheckExpiry(); err != nil {
			return err
		}
	}
	return c.keyEnded()
}

// keyEnded returns the error of a caller whose API key has ended. For a token that is the key that
// it was made with.
func (c *Caller) keyEnded() error {
	if c.guard.Keys == nil || c.vouched {
		return nil
	}
	keys := c.guard.Keys
	switch {
	case c.grant != nil:
		if !keys.On() {
			return nil
		}
		if keys.Tenant(c.owner.Tenant) == nil {
			return errOfNoKey
		}
		if c.grant.Key == "" {
			return nil
		}
		if key := c.keyOfToken(); key == nil || checkState(key, keys.Now()) != nil {
			return badToken("this token has ended with the key that it was made with: get a new one from the application")
		}
	case c.key != nil:
		key, ok := keys.Find(c.key.ID)
		if !ok {
			return errBadKey
		}
		return checkState(key, keys.Now())
	case keys.On():
		return errNoKey
	}
	return nil
}

// keyOfToken returns the API key with which the caller's token was made; nil for none.
func (c *Caller) keyOfToken() *access.Key {
	if c.grant.Key == "" || c.guard.Keys == nil {
		return nil
	}
	key, _ := c.guard.Keys.Find(c.grant.Key)
	return key
}

// sweepInterval is how often the callers of open streams are checked. A change of a key by another
// process is known within 2 s, so that a stream is cut within 5 s.
const sweepInterval = time.Second

// streams are the open streams and sockets of callers whose key may end.
type streams struct {
	mu sync.Mutex
	// guarded by mu
	open  map[*openStream]struct{}
	timer *time.Timer // nil while none is open
}

// openStream is a stream that is cut when its caller's key ends.
type openStream struct {
	caller *Caller
	cut    func()
}

// OnEnd calls cut once, if the caller's key ends before release is called; see [Caller.Check]. The
// end of a token's own time does not count: its holder may renew it, or reconnects with another.
// cut must not block, and may be called after release has begun.
func (c *Caller) OnEnd(cut func()) (release func()) {
	if c.guard.Keys == nil || c.vouched {
		return func() {}
	}
	s, o := &c.guard.streams, &openStream{c, cut}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*openStream]struct{}{}
	}
	s.open[o] = struct{}{}
	if s.timer == nil {
		s.timer = time.AfterFunc(sweepInterval, s.sweep)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if delete(s.open, o); len(s.open) == 0 && s.timer != nil {
			s.timer.Stop()
			s.timer = nil
		}
	}
}

// sweep cuts the streams whose caller's key has ended.
func (s *streams) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		return
	}
	for o := range s.open {
		if o.caller.keyEnded() != nil {
			delete(s.open, o)
			o.cut()
		}
	}
	if len(s.open) == 0 {
		s.timer = nil
		return
	}
	s.timer.Reset(sweepInterval)
}

// Context returns a context that also ends when the caller's key ends.
func (c *Caller) Context(parent context.Context) (ctx context.Context, cancel func()) {
	ctx, stop := context.WithCancel(parent)
	release := c.OnEnd(stop)
	return ctx, func() { release(); stop() }
}
