package runner

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// attempt is one attempt of one job, from its delivery to its end. To its executor
// it is the [exec.Sink]; that side of it is in sink.go.
type attempt struct {
	// set once
	r       *Runner
	claimed job.Claimed

	lease lease

	mu sync.Mutex
	// guarded by mu
	ctx        context.Context // the executor's; nil before it is called
	cancel     context.CancelCauseFunc
	why        error      // why ctx ended, or is to; nil while the work may go on
	fault      *job.Fault // what the attempt failed of, when why is a clock or a bound
	isCancel   bool       // a cancel was ordered: whatever else comes, it ends as cancelled
	isLost     bool       // the lease is gone: nothing more is written
	turnedAway bool       // something that the executor said was not taken
	seized     bool       // someone is storing the end: what is said now goes nowhere
	clocks     clocks
	timer      *time.Timer // rings for the clocks, then for letGoAt; nil until needed
	letGoAt    time.Time   // when an executor that was asked to stop is waited for no longer
	result     *job.Result
	usage      []byte
	speech     *speech            // nil while the executor has said nothing
	trace      string             // the traceparent of what the executor calls
	ended      func(*job.Outcome) // tells who follows the attempt; nil for nobody

	// owned by who has seized the attempt
	end job.Outcome // what it came to
}

// defaultGrace is how long an executor may take to stop when its job does not say.
const defaultGrace = 10 * time.Second

// run is the attempt's goroutine, until the executor has returned.
func (a *attempt) run() {
	err := errNotBegun
	if a.begin() {
		err = a.execute()
	}
	if a.seize() {
		a.settle(err)
		return
	}
	a.r.leave(nil)
}

// What an attempt came to whose executor was not called, or is waited for no longer.
var (
	errNotBegun = errors.New("runner: the attempt did not begin")
	errDeaf     = errors.New("runner: the executor did not stop in time")
)

// begin starts the clocks and makes the executor's context, unless the attempt is
// to stop already.
func (a *attempt) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.why == nil {
		a.restartLocked()
	}
	if a.why != nil {
		return false
	}
	a.ctx, a.cancel = context.WithCancelCause(a.followLocked())
	if a.clocks.set() {
		a.startClocksLocked()
	}
	return true
}

// execute calls the executor. Its panic is a fault of the attempt, not the end of
// the server.
func (a *attempt) execute() (err error) {
	defer func() {
		if p := recover(); p != nil {
			a.r.cfg.Log.Error("an executor panicked", "job", a.claimed.Job.ID, "panic", p, "stack", string(debug.Stack()))
			err = panicked()
		}
	}()
	return a.r.cfg.Executor.Execute(a.ctx, a.task(), a)
}

// task is the attempt as its executor gets it.
func (a *attempt) task() exec.Task {
	t := exec.Task{Job: a.claimed.Job, Input: a.claimed.Input}
	t.Job.Trace = a.trace
	for _, f := range t.Job.Files {
		t.Files = append(t.Files, exec.File{File: f, Path: a.r.cfg.Files(t.Job.ID, f)})
	}
	return t
}

// seize makes the caller the one who stores the end; false when there was one.
func (a *attempt) seize() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seizeLocked()
}

func (a *attempt) seizeLocked() bool {
	if a.seized {
		return false
	}
	a.seized = true
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.cancel != nil {
		a.cancel(nil)
	}
	return true
}

// settle has the end of a seized attempt stored. err is what its executor returned.
func (a *attempt) settle(err error) {
	a.hush()
	var ok bool
	if a.end, ok = a.outcome(err); !ok {
		a.over(nil)
		return
	}
	a.finish()
}

// over lets go of an attempt whose end is stored, or never will be.
func (a *attempt) over(o *job.Outcome) {
	a.tell(o)
	a.r.leave(a)
}

// outcome is what the attempt came to; none when its lease is gone.
func (a *attempt) outcome(err error) (o job.Outcome, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.isLost {
		return o, false
	}
	switch {
	case a.isCancel:
		o.Cancelled = true
	case err == nil && a.wholeLocked():
		o.Result = a.result
		a.completeLocked()
	case a.fault != nil:
		o.Fault = a.fault
	case a.why != nil:
		o.HandedBack = true
	default:
		o.Fault = job.FaultOf(err)
	}
	o.Usage = a.usage
	o.Entries, o.Progress = a.lastWordsLocked()
	return o, true
}

// wholeLocked says whether work that its executor says is done is. Work that was asked to
// stop, and is done all the same, need not be done again; unless the executor was turned
// away with something that belongs to it.
func (a *attempt) wholeLocked() bool {
	switch a.why {
	case nil:
		return true
	case exec.ErrStopping, exec.ErrLost, exec.ErrTimeout:
		return !a.turnedAway
	}
	return false
}

// cancelled asks the executor to stop because someone asked for the job's end.
func (a *attempt) cancelled() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.isCancel = true
	a.haltLocked(exec.ErrCancelled, nil, a.graceLocked())
}

// lost stops the work whose lease is gone. There is nothing left to write, and so
// nobody waits for the executor.
func (a *attempt) lost() {
	a.r.drop(a)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.isLost = true
	a.endLocked(exec.ErrLost, nil)
}

// lapse stops work whose lease could not be renewed, before it ends: another may
// have the job after that. What is written in time still counts.
func (a *attempt) lapse() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.haltLocked(exec.ErrLost, nil, a.graceLocked())
}

// stop asks the executor to stop because the runner is to.
func (a *attempt) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.haltLocked(exec.ErrStopping, nil, stopWait)
}

// haltLocked asks the executor to stop, and lets go of it if it has not after the
// grace.
func (a *attempt) haltLocked(why error, f *job.Fault, grace time.Duration) {
	if a.seized {
		return
	}
	a.endLocked(why, f)
	at := time.Now().Add(grace)
	if a.letGoAt.IsZero() || at.Before(a.letGoAt) {
		a.letGoAt = at
		a.ringInLocked(grace)
	}
}

// endLocked ends the executor's context. The first reason stands.
func (a *attempt) endLocked(why error, f *job.Fault) {
	if a.why != nil {
		return
	}
	a.why, a.fault = why, f
	if a.cancel != nil {
		a.cancel(why)
	}
}

func (a *attempt) graceLocked() time.Duration {
	if g := a.clocks.limits.CancelGrace; g > 0 {
		return g
	}
	return defaultGrace
}

// ringInLocked has the timer ring after that time.
func (a *attempt) ringInLocked(d time.Duration) {
	if a.timer == nil {
		a.timer = time.AfterFunc(d, a.ring)
		return
	}
	a.timer.Reset(d)
}

// ring is called by the timer, on a goroutine of its own.
func (a *attempt) ring() {
	a.r.enter()
	if a.ranOut(time.Now()) {
		a.r.cfg.Log.Warn("an executor did not stop in time; its slot is free again", "job", a.claimed.Job.ID, "asked", a.why)
		a.settle(errDeaf)
		return
	}
	a.r.leave(nil)
}

// ranOut looks at the clocks, and seizes the attempt if it is waited for no longer.
func (a *attempt) ranOut(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seized {
		return false
	}
	if a.why == nil {
		a.lookAtClocksLocked(now)
	}
	if a.letGoAt.IsZero() {
		return false
	}
	if left := a.letGoAt.Sub(now); left > 0 {
		a.ringInLocked(left)
		return false
	}
	return a.seizeLocked()
}

// lookAtClocksLocked halts the attempt if a clock has run out, or has the timer
// ring when one may have.
func (a *attempt) lookAtClocksLocked(now time.Time) {
	which, at := a.clocks.nearest(now)
	switch {
	case at.IsZero():
	case at.After(now):
		a.ringInLocked(at.Sub(now))
	default:
		a.haltLocked(exec.ErrTimeout, a.clocks.fault(which), a.clocks.grace(which, now, a.graceLocked()))
	}
}

func (a *attempt) startClocksLocked() {
	now := time.Now()
	a.clocks.start(now)
	a.lookAtClocksLocked(now)
}
