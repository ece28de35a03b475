package runner

import (
	"bytes"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// maxUnsaved limits the output that is not on disk yet, in bytes. An executor that would exceed
// it waits.
const maxUnsaved = 256 << 10

// errAttemptOver is returned to an executor that writes after it has returned.
var errAttemptOver = errors.New("runner: the attempt is over")

var _ exec.Sink = (*attempt)(nil)

// ResetTimeouts implements [exec.Sink].
func (a *attempt) ResetTimeouts() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopCause == nil && !a.finishing && a.clocks.enabled() {
		a.startClocksLocked()
	}
}

// Alive implements [exec.Sink].
func (a *attempt) Alive() {
	a.mu.Lock()
	defer a.mu.Unlock()
	// A stopped attempt's timer waits for the stop deadline, which no sign of life moves.
	if a.errIfOverLocked() == nil {
		a.noteOutputLocked()
	}
}

// Killed implements [exec.Sink].
func (a *attempt) Killed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.onKill == nil {
		a.onKill = make(chan struct{})
		if a.killed {
			close(a.onKill)
		}
	}
	return a.onKill
}

// Text implements [exec.Sink].
func (a *attempt) Text(piece string) error {
	for len(piece) > 0 {
		part := piece[:min(len(piece), maxPart)]
		if err := a.addOutput(maxValidLen(part), func(p *packer) bool { return p.addText(part) }); err != nil {
			return err
		}
		piece = piece[len(part):]
	}
	return nil
}

// maxPart is the maximum length of a piece that is packed in one step. It fits in an entry even
// if all its bytes become U+FFFD.
const maxPart = maxTextEntry/len("\uFFFD") - utf8.UTFMax

// Event implements [exec.Sink].
func (a *attempt) Event(value []byte) error {
	return a.addOutput(len(value), func(p *packer) bool { return p.addEvent(value) })
}

// Log implements [exec.Sink].
func (a *attempt) Log(line string) error {
	return a.addOutput(maxValidLen(line), func(p *packer) bool { return p.addLog(line) })
}

// Progress implements [exec.Sink]. It does not count as output for the clocks, because executors
// report progress before their first output.
func (a *attempt) Progress(p job.Progress) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.packLocked(func(pk *packer) bool { pk.setProgress(p); return true })
}

// Result implements [exec.Sink].
func (a *attempt) Result(r job.Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.finishing:
	case len(r.Body) > job.MaxResult:
		f := resultTooLarge(len(r.Body))
		a.stopLocked(f, f, a.graceLocked())
	default:
		a.result = &r
	}
}

// Usage implements [exec.Sink].
func (a *attempt) Usage(u []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.finishing {
		a.usage = bytes.Clone(u)
	}
}

// addOutput packs a piece of at most size bytes. It blocks while too much output is not on disk
// yet.
func (a *attempt) addOutput(size int, add func(*packer) bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.errIfOverLocked()
	if err == nil {
		a.noteOutputLocked()
		err = a.waitForSpaceLocked(size)
	}
	if err == nil {
		err = a.packLocked(add)
	}
	if err != nil {
		a.outputRejected = true // so that a nil from the executor does not count as success
	}
	return err
}

// errIfOverLocked returns the error for an executor that writes after its attempt was stopped;
// nil while it may write.
func (a *attempt) errIfOverLocked() error {
	switch {
	case a.stopCause != nil:
		return a.stopCause
	case a.finishing:
		return errAttemptOver
	}
	return nil
}

// noteOutputLocked records the time of output or of another sign of life. After the first output it sets the timer for the
// idle limit, which replaces the first-output limit.
func (a *attempt) noteOutputLocked() {
	if !a.clocks.enabled() {
		return
	}
	now, first := time.Now(), a.clocks.lastOutput.IsZero()
	a.clocks.lastOutput = now
	if first {
		a.checkClocksLocked(now)
	}
}

// waitForSpaceLocked blocks, without the lock, while more than maxUnsaved is not on disk. A
// piece larger than maxUnsaved waits until no other output is unsaved.
func (a *attempt) waitForSpaceLocked(size int) error {
	size += 2 * entryOverhead // the piece may complete a character and start an entry
	w := a.writer
	for w != nil && w.unsaved() > 0 && w.unsaved()+size > maxUnsaved {
		a.clocks.blocked = true
		a.mu.Unlock()
		select {
		case <-w.space:
		case <-a.ctx.Done():
		}
		a.mu.Lock()
		a.clocks.blocked = false
		// The attempt may have been stopped while the lock was released.
		if err := a.errIfOverLocked(); err != nil {
			return err
		}
		a.noteOutputLocked()
	}
	return nil
}

// packLocked calls add with the packer. It wakes the writer if the output must be written sooner
// than before.
func (a *attempt) packLocked(add func(*packer) bool) error {
	if err := a.errIfOverLocked(); err != nil {
		return err
	}
	w := a.writerLocked()
	before := w.urgency()
	if !add(&w.packer) {
		f := outputTooLarge()
		a.stopLocked(f, f, a.graceLocked())
		return f
	}
	// Most pieces join a chunk that the writer already waits for. A wake-up for each piece would
	// be expensive.
	if w.urgency() > before {
		notify(w.wake)
	}
	return nil
}

// packAttemptLocked adds an attempt entry if the job has had an attempt or output before. The
// entry marks the output of earlier attempts as superseded.
func (a *attempt) packAttemptLocked() {
	if a.claimed.Job.Attempt > 1 || a.claimed.Job.Cursor > 0 {
		_ = a.packLocked((*packer).addAttempt) // if the entry does not fit, the attempt was stopped
	}
}
