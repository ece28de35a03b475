package runner

// mostResting is how many goroutines wait for the next attempt at most.
const mostResting = 64

// startLocked runs an attempt on a goroutine of its own: one that rests, whose stack
// has grown to what an attempt needs already, or a new one.
func (r *Runner) startLocked(a *attempt) {
	if r.resting == 0 {
		go r.work(a)
		return
	}
	r.resting--
	r.next <- a // has room for all that rest
}

// work runs attempts, one after another, for as long as it may rest in between.
func (r *Runner) work(a *attempt) {
	for a != nil {
		a.run()
		a = r.rest()
	}
}

// rest waits for the next attempt; nil when there is to be none.
func (r *Runner) rest() *attempt {
	r.mu.Lock()
	if r.phase != serving || r.resting == mostResting {
		r.mu.Unlock()
		return nil
	}
	r.resting++
	r.rested.Add(1)
	r.mu.Unlock()
	defer r.rested.Done()
	return <-r.next
}

// wakeLocked ends all rest.
func (r *Runner) wakeLocked() {
	for ; r.resting > 0; r.resting-- {
		r.next <- nil
	}
}
