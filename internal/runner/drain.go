package runner

import (
	"fmt"
	"time"
)

// How long a shutdown waits once the grace has passed.
const (
	stopTimeout  = 2 * time.Second // for executors that were asked to stop
	writeTimeout = time.Second     // for the writes that follow
)

// drain stops the runner in order: let work finish, ask it to stop, give up its writes.
func (r *Runner) drain() error {
	if r.drainedWithin(r.cfg.Grace) {
		return nil
	}
	// Grace is over: ask what is left to stop, and release it after stopTimeout.
	for _, a := range r.leasedAttempts() {
		a.onShutdown()
	}
	if r.drainedWithin(stopTimeout + writeTimeout) {
		return nil
	}
	// The store does not answer. Its leases will expire without us.
	r.cancelWrites()
	if r.drainedWithin(writeTimeout) {
		return nil
	}
	return fmt.Errorf("runner: work of queue %s did not stop when it was asked to", r.cfg.Queue)
}

func (r *Runner) setPhase(p phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase = p
	r.stopIdleLocked()
}

// drainedWithin waits at most d until nothing is active.
func (r *Runner) drainedWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for r.isActive() {
		select {
		case <-r.drained:
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
