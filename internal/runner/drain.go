package runner

import (
	"fmt"
	"time"
)

// Timeouts of a shutdown after the grace.
const (
	stopTimeout  = 2 * time.Second // for executors that were asked to stop
	writeTimeout = time.Second     // for the writes that follow
)

// drain stops the runner in order: it lets work finish, stops the rest, and gives up pending
// writes.
func (r *Runner) drain() error {
	if r.drainedWithin(r.cfg.Grace) {
		return nil
	}
	// The grace is over: stop the remaining work, and release its jobs after stopTimeout.
	for _, a := range r.leasedAttempts() {
		a.onShutdown()
	}
	if r.drainedWithin(stopTimeout + writeTimeout) {
		return nil
	}
	// The store does not answer. The leases expire by themselves.
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

// drainedWithin waits at most d until no goroutine works for an attempt.
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
