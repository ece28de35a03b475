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

// attempt is one attempt of one job, from its delivery to its end. It is the [exec.Sink] of
// its executor; those methods are in sink.go.
type attempt struct {
	// set once
	r       *Runner
	claimed job.Claimed

	lease lease

	mu sync.Mutex
	// guarded by mu
	ctx            context.Context // the executor's; nil before the executor is called
	cancel         context.CancelCauseFunc
	stopCause      error      // why ctx ended or will end; nil while the work may go on
	fault          *job.Fault // the fault of the attempt when a timeout or a limit stopped it
	cancelOrdered  bool       // the outcome is "cancelled", whatever else happens
	leaseLost      bool       // nothing more is written
	outputRejected bool       // the executor got an error for some of its output
	finishing      bool       // the outcome is being stored; more output is refused
	clocks         clocks
	timer          *time.Timer // rings for the clocks, then for stopDeadline; nil until needed
	stopDeadline   time.Time   // a stopped executor is waited for no longer than this
	result         *job.Result
	usage          []byte
	writer         *outputWriter      // nil before the first output
	trace          string             // the traceparent that the executor passes on
	onEnd          func(*job.Outcome) // from the hook; nil without one

	// owned by the goroutine to which startFinishing returned true
	outcome job.Outcome // what is stored
}

// defaultGrace is how long an executor may take to stop when its job sets no grace.
const defaultGrace = 10 * time.Second

// run is the attempt's goroutine. It returns when the executor has.
func (a *attempt) run() {
	err := errNotStarted
	if a.start() {
		err = a.execute()
	}
	if a.startFinishing() {
		a.end(err)
		return
	}
	// The timer has given up on this executor: its goroutine stores the outcome.
	a.r.removeActive(nil)
}

// What decideOutcome gets in place of an error from the executor.
var (
	errNotStarted = errors.New("runner: the attempt did not start")
	errDidNotStop = errors.New("runner: the executor did not stop in time")
)

// start starts the clocks and makes the executor's context. It returns false if the attempt is
// to stop already.
func (a *attempt) start() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopCause == nil {
		a.packAttemptLocked()
	}
	// The entry of the attempt may have stopped it: the output may be full already.
	if a.stopCause != nil {
		return false
	}
	a.ctx, a.cancel = context.WithCancelCause(a.callHookLocked())
	if a.clocks.enabled() {
		a.startClocksLocked()
	}
	return true
}

// execute calls the executor. A panic becomes a fault of the attempt, so that it does not end
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

// task returns what the executor is given.
func (a *attempt) task() exec.Task {
	t := exec.Task{Job: a.claimed.Job, Input: a.claimed.Input}
	t.Job.Trace = a.trace
	for _, f := range t.Job.Files {
		t.Files = append(t.Files, exec.File{File: f, Path: a.r.cfg.Files(t.Job.ID, f)})
	}
	return t
}

// startFinishing returns true to one caller only: the one that must store the outcome.
func (a *attempt) startFinishing() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.startFinishingLocked()
}

func (a *attempt) startFinishingLocked() bool {
	if a.finishing {
		return false
	}
	a.finishing = true
	// From here on Sink methods refuse output, so nothing needs the timer or the context.
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.cancel != nil {
		a.cancel(nil)
	}
	return true
}

// end stores the outcome of an attempt. startFinishing must have returned true. err is what
// the executor returned.
func (a *attempt) end(err error) {
	// First the writer: only then is it known what the outcome must still carry, and no two
	// writes of one lease are outstanding.
	a.stopWriter()
	var ok bool
	if a.outcome, ok = a.decideOutcome(err); !ok {
		a.close(nil)
		return
	}
	a.storeOutcome()
}

// close reports the end of the attempt to the hook and to the runner. The outcome is stored,
// or never will be.
func (a *attempt) close(o *job.Outcome) {
	a.mu.Lock()
	onEnd := a.onEnd
	a.mu.Unlock()
	if onEnd != nil {
		onEnd(o)
	}
	a.r.removeActive(a)
}

// decideOutcome returns the outcome of the attempt; ok is false if its lease is lost.
func (a *attempt) decideOutcome(err error) (o job.Outcome, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leaseLost {
		return o, false
	}
	// The order matters: an acknowledged cancel beats everything, and work that is done beats
	// the timeout that stopped it.
	switch {
	case a.cancelOrdered:
		o.Cancelled = true
	case err == nil && a.isDoneLocked():
		o.Result = a.result
		if a.writer != nil {
			a.writer.packer.completeProgress()
		}
	case a.fault != nil:
		o.Fault = a.fault
	case a.stopCause != nil:
		o.Released = true
	default:
		o.Fault = job.FaultOf(err)
	}
	o.Usage = a.usage
	o.Entries, o.Progress = a.remainingOutputLocked()
	return o, true
}

// isDoneLocked reports whether the work counts as done when its executor returned nil. Work
// that was asked to stop and finished all the same is not repeated, unless some of its output
// was rejected.
func (a *attempt) isDoneLocked() bool {
	switch a.stopCause { //nolint:errorlint // the causes are these values, never wrapped
	case nil:
		return true
	case exec.ErrStopping, exec.ErrLost, exec.ErrTimeout:
		return !a.outputRejected
	}
	return false
}

// onCancel asks the executor to stop because the job was cancelled.
func (a *attempt) onCancel() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancelOrdered = true
	a.stopLocked(exec.ErrCancelled, nil, a.graceLocked())
}

// onLeaseLost stops the work. Nothing more can be written, so the runner does not wait for the
// executor.
func (a *attempt) onLeaseLost() {
	a.r.removeLease(a)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaseLost = true
	a.cancelContextLocked(exec.ErrLost, nil)
}

// onLeaseExpiring stops work whose lease could not be renewed, before another worker may get
// the job. What is written in time still counts.
func (a *attempt) onLeaseExpiring() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopLocked(exec.ErrLost, nil, a.graceLocked())
}

// onShutdown asks the executor to stop because the runner is stopping.
func (a *attempt) onShutdown() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopLocked(exec.ErrStopping, nil, stopTimeout)
}

// stopLocked asks the executor to stop and waits for it no longer than grace.
func (a *attempt) stopLocked(cause error, f *job.Fault, grace time.Duration) {
	if a.finishing {
		return
	}
	a.cancelContextLocked(cause, f)
	// A later request with a shorter grace brings the deadline forward; none puts it off.
	at := time.Now().Add(grace)
	if a.stopDeadline.IsZero() || at.Before(a.stopDeadline) {
		a.stopDeadline = at
		a.setTimerLocked(grace)
	}
}

// cancelContextLocked ends the executor's context. Only the first cause counts.
func (a *attempt) cancelContextLocked(cause error, f *job.Fault) {
	if a.stopCause != nil {
		return
	}
	a.stopCause, a.fault = cause, f
	if a.cancel != nil {
		a.cancel(cause)
	}
}

func (a *attempt) graceLocked() time.Duration {
	if g := a.clocks.limits.CancelGrace; g > 0 {
		return g
	}
	return defaultGrace
}

// setTimerLocked makes the timer ring after d.
func (a *attempt) setTimerLocked(d time.Duration) {
	if a.timer == nil {
		a.timer = time.AfterFunc(d, a.onTimer)
		return
	}
	a.timer.Reset(d)
}

// onTimer runs on the timer's own goroutine.
func (a *attempt) onTimer() {
	// Run must not return while this goroutine may still store an outcome.
	a.r.addActive()
	if a.checkDeadlines(time.Now()) {
		a.r.cfg.Log.Warn("an executor did not stop in time; its slot is free again", "job", a.claimed.Job.ID, "asked", a.stopCause)
		a.end(errDidNotStop)
		return
	}
	a.r.removeActive(nil)
}

// checkDeadlines checks the clocks and the stop deadline. It returns true when the deadline
// has passed and the caller must store the outcome.
func (a *attempt) checkDeadlines(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.finishing {
		return false
	}
	if a.stopCause == nil {
		a.checkClocksLocked(now)
	}
	if a.stopDeadline.IsZero() {
		return false
	}
	// The timer may have been set for a clock, or for an earlier deadline.
	if left := a.stopDeadline.Sub(now); left > 0 {
		a.setTimerLocked(left)
		return false
	}
	return a.startFinishingLocked()
}

// checkClocksLocked stops the attempt if a clock has run out. Otherwise it sets the timer for
// the next clock.
func (a *attempt) checkClocksLocked(now time.Time) {
	which, at := a.clocks.nextExpiry(now)
	switch {
	case at.IsZero():
	case at.After(now):
		a.setTimerLocked(at.Sub(now))
	default:
		a.stopLocked(exec.ErrTimeout, a.clocks.fault(which), a.clocks.grace(which, now, a.graceLocked()))
	}
}

func (a *attempt) startClocksLocked() {
	now := time.Now()
	a.clocks.startedAt, a.clocks.lastOutput = now, time.Time{}
	a.checkClocksLocked(now)
}
