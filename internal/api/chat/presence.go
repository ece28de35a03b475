package chat

import (
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	stay       = 60 * time.Second // how long a heartbeat counts
	maxPresent = 100_000          // users
)

// presence remembers who said lately that they are here. It is a matter of this
// process: a restart forgets it, and the next heartbeat brings it back.
type presence struct {
	mu    sync.Mutex
	until map[job.Owner]time.Time // guarded by mu
}

// beat notes that a user is here.
func (p *presence) beat(who job.Owner) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.until == nil {
		p.until = map[job.Owner]time.Time{}
	}
	if _, known := p.until[who]; !known && len(p.until) >= maxPresent {
		maps.DeleteFunc(p.until, func(_ job.Owner, until time.Time) bool { return !until.After(now) })
		if len(p.until) >= maxPresent {
			return job.Errorf(job.Overloaded, "as many users are here as the server can remember")
		}
	}
	p.until[who] = now.Add(stay)
	return nil
}

// here says whether the user's last heartbeat still counts.
func (p *presence) here(who job.Owner) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.until[who].After(time.Now())
}

// Present says whether a user has been heard of within the last 60 s.
func (f *Face) Present(who job.Owner) bool { return f.present.here(who) }

func (f *Face) postHeartbeat(w http.ResponseWriter, r *http.Request) error {
	if err := noBody(r); err != nil {
		return err
	}
	if err := f.present.beat(api.Owner(r)); err != nil {
		return err
	}
	api.WriteJSON(w, http.StatusOK, struct {
		Status    string  `json:"status"`
		ExpiresIn float64 `json:"expires_in_s"`
	}{"ok", stay.Seconds()})
	return nil
}
