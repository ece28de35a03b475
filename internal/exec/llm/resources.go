package llm

import (
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
)

// resources are the models of an executor as the engine sees them: a job waits for its model
// before it takes a slot of its queue.
type resources struct {
	models map[string]*model // set once

	mu sync.Mutex
	// guarded by mu
	onRoom func()
	timer  *time.Timer // calls onRoom when time alone lets more calls begin; nil until needed
	wakeAt time.Time   // when the timer fires; zero if it does not
	closed bool
}

var _ exec.Resources = (*resources)(nil)

// Limits implements [exec.Resources].
func (r *resources) Limits() map[string]int {
	now := time.Now()
	limits := make(map[string]int, len(r.models))
	var wakeAt time.Time
	for name, m := range r.models {
		n, at := m.limit(now)
		limits[name] = n
		if !at.IsZero() && (wakeAt.IsZero() || at.Before(wakeAt)) {
			wakeAt = at
		}
	}
	if !wakeAt.IsZero() {
		r.scheduleWake(wakeAt, now)
	}
	return limits
}

// OnRoom implements [exec.Resources].
func (r *resources) OnRoom(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onRoom = f
}

// scheduleWake makes the timer fire at a time, unless it fires before.
func (r *resources) scheduleWake(at, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed, r.onRoom == nil, !r.wakeAt.IsZero() && !at.Before(r.wakeAt):
		return
	case r.timer == nil:
		r.timer = time.AfterFunc(at.Sub(now), r.wake)
	default:
		r.timer.Reset(at.Sub(now))
	}
	r.wakeAt = at
}

func (r *resources) wake() {
	r.mu.Lock()
	r.wakeAt = time.Time{}
	r.mu.Unlock()
	r.changed()
}

// changed tells the engine that more calls may begin.
func (r *resources) changed() {
	r.mu.Lock()
	f := r.onRoom
	r.mu.Unlock()
	if f != nil {
		f()
	}
}

func (r *resources) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.onRoom = true, nil
	if r.timer != nil {
		r.timer.Stop()
	}
}
