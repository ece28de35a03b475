package gate

import (
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Bounds of the attempts to guess a key.
const (
	maxBadKeys      = 20          // of an address in an attemptWindow, before it is told to wait
	attemptWindow   = time.Minute //
	maxAttemptAddrs = 10_000      // addresses that are remembered
)

// attempts counts the wrong keys of each address. A wrong key past the bound is 429 with
// Retry-After, and the connection is closed, so that each further guess costs a new one. A right
// key is let in all the same: a key has 256 random bits, so no number of guesses finds one, and
// refusing it would let anyone behind the same proxy lock an application out. The zero value is
// ready.
type attempts struct {
	mu      sync.Mutex
	clients map[string]*attempt // guarded by mu
}

// attempt has the wrong keys of one address.
type attempt struct {
	since time.Time // when the window began
	count int
}

// refuse counts a wrong key of an address, and returns its error.
func (a *attempts) refuse(client string) error {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.clients[client]
	if at == nil {
		a.makeRoomLocked(now)
		at = &attempt{}
		a.clients[client] = at
	}
	if now.Sub(at.since) >= attemptWindow {
		*at = attempt{since: now}
	}
	if at.count++; at.count <= maxBadKeys {
		return errBadKey
	}
	return &job.Error{Code: api.TooManyBadKeys, RetryAfter: at.since.Add(attemptWindow).Sub(now),
		Message: "this address has sent too many wrong keys: wait, and send the right one"}
}

// makeRoomLocked forgets an address where the most are remembered: one whose window is over, if a
// look at a few finds one.
func (a *attempts) makeRoomLocked(now time.Time) {
	if a.clients == nil {
		a.clients = map[string]*attempt{}
	}
	if len(a.clients) < maxAttemptAddrs {
		return
	}
	const few = 32
	looked, victim := 0, ""
	for client, at := range a.clients { // in random order
		victim = client
		if looked++; looked == few || now.Sub(at.since) >= attemptWindow {
			break
		}
	}
	delete(a.clients, victim)
}
