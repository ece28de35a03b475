package jobs

import (
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The most uploads at once. An upload may last for as long as its client sends, so one caller
// leaves some to others.
const (
	maxUploads       = 64
	maxCallerUploads = 48
)

// uploads counts the submits with files that are being received. The zero value is ready. It is
// safe for concurrent use.
type uploads struct {
	mu sync.Mutex
	// guarded by mu
	all     int
	callers map[api.Caller]int // only those with uploads
}

// begin counts an upload of a caller, or refuses it. After nil the caller of this method must
// call end.
func (u *uploads) begin(c api.Caller) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.callers[c] >= maxCallerUploads:
		return &job.Error{Code: api.CallerBusy, Message: "this caller sends as many files at once as it may: try again in a moment", RetryAfter: 5 * time.Second}
	case u.all >= maxUploads:
		return &job.Error{Code: job.Overloaded, Message: "too many files are being received at the moment: try again in a moment", RetryAfter: 5 * time.Second}
	}
	if u.callers == nil {
		u.callers = map[api.Caller]int{}
	}
	u.callers[c]++
	u.all++
	return nil
}

// end ends an upload of a caller.
func (u *uploads) end(c api.Caller) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all--
	if u.callers[c]--; u.callers[c] == 0 {
		delete(u.callers, c)
	}
}
