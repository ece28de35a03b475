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
	// leaseRenewed is closed by the first renewal; nil if the work starts without one.
	leaseRenewed chan struct{}

	lease lease

	mu sync.Mutex
	// guarded by mu
	// ctx is the context of the executor, or before its call that of the wait for leaseRenewed;
	// nil before that.
	ctx            context.Context
	cancel         context.CancelCauseFunc
	stopCause      error         // why ctx ended or will end; nil while the work may continue
	fault          *job.Fault    // the fault of the attempt when a timeout or a limit stopped it
	cancelOrdered  bool          // the outcome is "cancelled" in any case
	leaseLost      bool          // nothing more is written
	outputRejected bool          // the executor got an error for some of its output
	finishing      bool          // the outcome is being stored; more output is refused
	killed         bool          // the executor must end at once
	onKill         chan struct{} // closed when killed becomes true; nil until needed
	clocks         clocks
	timer          *time.Timer // fires for the clocks, then for stopDeadline; nil until needed
	stopDeadline   time.Time   // time at which the runner stops waiting for a stopped executor
	result         *job.Result
	usage          []byte
	writer         *outputWriter      // nil before the first output
	trace          string             // the traceparent that the executor passes on
	onEnd          func(*job.Outcome) // from the hook; nil without one

	// owned by the goroutine to which startFinishing returned true
	outcome job.Outcome // the outcome to store
}

// defaultGrace is how long an executor may take to stop when its job sets no grace.
const defaultGrace = 10 * time.Second

// run is the attempt's goroutine. It returns after the executor has returned.
func (a *attempt) run() {
	err := errGoexit // unless start or execute returns
	// Deferred, because a function may end its goroutine, as FailNow of a test does.
	defer func() {
		if a.startFinishing() {
			a.end(err)
			return
		}
		// The timer has given up on this executor, and its goroutine stores the outcome.
		a.r.removeActive(nil)
	}()
	if a.leaseRenewed != nil {
		a.awaitRenewal()
	}
	if a.start() {
		err = a.execute()
	} else {
		err = errNotStarted
	}
}

// Errors for decideOutcome if the executor returned none.
var (
	errNotStarted = errors.New("runner: the attempt did not start")
	errDidNotStop = errors.New("runner: the executor did not stop in time")
)

// awaitRenewal returns when the lease was renewed or the attempt was stopped.
func (a *attempt) awaitRenewal() {
	a.mu.Lock()
	ctx, cancel := a.ctx, a.cancel
	a.mu.Unlock()
	defer cancel(nil) // start makes another context
	select {
	case <-a.leaseRenewed:
	case <-ctx.Done():
	}
}

// start starts the clocks and makes the executor's context. It returns false if the attempt must
// not start.
func (a *attempt) start() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopCause == nil {
		a.packAttemptLocked()
	}
	// The attempt entry itself may have stopped the attempt, if the job's output is at its
	// limit.
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
	if a.claimed.Unreadable != nil {
		return unreadable(a.claimed.Unreadable)
	}
	t := exec.Task{Job: a.claimed.Job, Input: a.claimed.Input, Clocks: a.r.cfg.Clocks}
	t.Job.Trace = a.trace
	if len(t.Job.Files) > 0 {
		release, err := a.fetchFiles(&t)
		if err != nil {
			return err
		}
		defer release()
	}
	return a.r.cfg.Executor.Execute(a.ctx, t, a)
}

// fetchFiles puts the job's files on the local disk. They stay there until release is called.
func (a *attempt) fetchFiles(t *exec.Task) (release func(), err error) {
	paths, release, err := a.r.cfg.Files(a.ctx, t.Job.ID, t.Job.Files)
	if err != nil {
		return nil, err
	}
	for i, f := range t.Job.Files {
		t.Files = append(t.Files, exec.File{File: f, Path: paths[i]})
	}
	// The work begins only now: large files take long to come from another machine.
	a.ResetTimeouts()
	return release, nil
}

// startFinishing returns true only to its first caller, which must store the outcome.
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
	// Sink methods refuse output from here on, so the timer and the context are no longer
	// needed.
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.cancel != nil {
		a.cancel(nil)
	}
	return true
}

// end stores the outcome of an attempt, after startFinishing has returned true. err is the error
// that the executor returned.
func (a *attempt) end(err error) {
	// First stop the writer. It may still be storing output, and a lease has only one
	// outstanding write. The outcome carries the rest of the output.
	a.stopWriter()
	var ok bool
	if a.outcome, ok = a.decideOutcome(err); !ok {
		a.close(nil)
		return
	}
	a.storeOutcome()
}

// close reports the end of the attempt to the hook and to the runner. The outcome is stored, or
// can no longer be stored.
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
	// The order matters: an acknowledged cancel has priority over everything, and finished work
	// over the timeout that stopped it.
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
	case errors.Is(err, exec.ErrNoRoom):
		o.Released = true
	default:
		o.Fault = job.FaultOf(err)
	}
	o.Usage = a.usage
	o.Entries, o.Progress = a.remainingOutputLocked()
	return o, true
}

// isDoneLocked reports whether the work counts as done although it was stopped, because its
// executor returned nil. Finished work is not repeated, unless some of its output was rejected.
func (a *attempt) isDoneLocked() bool {
	if a.stopCause == nil {
		return true
	}
	finished := errors.Is(a.stopCause, exec.ErrStopping) || errors.Is(a.stopCause, exec.ErrLost) ||
		errors.Is(a.stopCause, exec.ErrTimeout)
	return finished && !a.outputRejected
}

// onCancel asks the executor to stop because the job was cancelled.
func (a *attempt) onCancel() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancelOrdered = true
	a.stopLocked(exec.ErrCancelled, nil, a.graceLocked())
}

// onLeaseLost stops the work at once, because another worker may have the job. Nothing more can
// be written, so the runner does not wait for the executor.
func (a *attempt) onLeaseLost() {
	a.r.removeLease(a)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaseLost = true
	a.killLocked()
	a.cancelContextLocked(exec.ErrLost, nil)
}

// onLeaseExpiring stops work whose lease could not be renewed, before another worker may get the
// job: the work must be over within left, whatever its grace. Writes that succeed in time still
// count.
func (a *attempt) onLeaseExpiring(left time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopLocked(exec.ErrLost, nil, min(a.graceLocked(), left))
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
	// A later request with a shorter grace makes the deadline earlier; no request makes it
	// later.
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

// killLocked makes an executor that has not stopped yet end its work at once.
func (a *attempt) killLocked() {
	if a.killed {
		return
	}
	a.killed = true
	if a.onKill != nil {
		close(a.onKill)
	}
}

func (a *attempt) graceLocked() time.Duration {
	if g := a.clocks.limits.CancelGrace; g > 0 {
		return g
	}
	return defaultGrace
}

// setTimerLocked makes the timer fire after d.
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

// checkDeadlines checks the clocks and the stop deadline. It returns true if the deadline has
// passed and the caller must store the outcome.
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
	a.killLocked()
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
