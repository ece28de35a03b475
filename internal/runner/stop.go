package runner

import (
	"fmt"
	"time"
)

// How long a shutdown waits once the grace is over.
const (
	stopWait  = 2 * time.Second // for executors that were asked to stop
	writeWait = time.Second     // for what is then written
)

// drain is the order in which a runner stops.
func (r *Runner) drain() error {
	if r.quietWithin(r.cfg.Grace) {
		return nil
	}
	for _, a := range r.attempts() {
		a.stop()
	}
	if r.quietWithin(stopWait + writeWait) {
		return nil
	}
	r.giveUp()
	if r.quietWithin(writeWait) {
		return nil
	}
	return fmt.Errorf("runner: work of queue %s did not stop when it was asked to", r.cfg.Queue)
}

func (r *Runner) enterPhase(p phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase = p
	r.wakeLocked()
}

// quietWithin waits until nothing is active, and no longer than that.
func (r *Runner) quietWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for r.isActive() {
		select {
		case <-r.quiet:
		case <-timer.C:
			return false
		}
	}
	return true
}

func (r *Runner) isActive() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.active > 0
}
