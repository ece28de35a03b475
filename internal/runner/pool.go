package runner

// maxIdle is the largest number of idle goroutines.
const maxIdle = 64

// startLocked runs an attempt on an idle goroutine, or else on a new one. An idle goroutine is
// cheaper, because its stack has already grown.
func (r *Runner) startLocked(a *attempt) {
	if r.idle == 0 {
		go r.runAttempts(a)
		return
	}
	r.idle--
	r.next <- a // does not block: the buffer holds maxIdle
}

// runAttempts runs a and then further attempts. It returns when there are maxIdle idle
// goroutines already, or when the runner is stopping.
func (r *Runner) runAttempts(a *attempt) {
	for a != nil {
		a.run()
		a = r.waitForNext()
	}
}

// waitForNext returns the next attempt, or nil if the goroutine must end.
func (r *Runner) waitForNext() *attempt {
	r.mu.Lock()
	if r.phase != accepting || r.idle == maxIdle {
		r.mu.Unlock()
		return nil
	}
	r.idle++
	r.idlePool.Add(1)
	r.mu.Unlock()
	defer r.idlePool.Done()
	return <-r.next
}

// stopIdleLocked ends all idle goroutines.
func (r *Runner) stopIdleLocked() {
	for ; r.idle > 0; r.idle-- {
		r.next <- nil
	}
}
