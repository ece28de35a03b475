package runner

import (
	"bytes"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// mostHeld bounds what is said and not yet on disk: past it the executor waits.
const mostHeld = 256 << 10

// errOver answers an executor that speaks after it has returned.
var errOver = errors.New("runner: the attempt is over")

var _ exec.Sink = (*attempt)(nil)

// ResetTimeouts starts the attempt's clocks again.
func (a *attempt) ResetTimeouts() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.why == nil && !a.seized && a.clocks.set() {
		a.startClocksLocked()
	}
}

// Text says a piece of the answer.
func (a *attempt) Text(piece string) error {
	for len(piece) > 0 {
		part := piece[:min(len(piece), mostPart)]
		if err := a.say(grown(part), func(p *packer) bool { return p.text(part) }); err != nil {
			return err
		}
		piece = piece[len(part):]
	}
	return nil
}

// mostPart is the longest piece that is packed at once: it fits an entry even if
// none of it is UTF-8.
const mostPart = mostText/len("\uFFFD") - utf8.UTFMax

// Event says one JSON value.
func (a *attempt) Event(value []byte) error {
	return a.say(len(value), func(p *packer) bool { return p.event(value) })
}

// Log says a line to whoever operates the job.
func (a *attempt) Log(line string) error {
	return a.say(grown(line), func(p *packer) bool { return p.log(line) })
}

// Progress reports how far the attempt is. It is not a sign of life to the clocks
// of output: a report that work has begun is not its first word.
func (a *attempt) Progress(p job.Progress) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.gatherLocked(func(pk *packer) bool { pk.tell(p); return true })
}

// Result sets what the job comes to.
func (a *attempt) Result(r job.Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.seized:
	case len(r.Body) > job.MaxResult:
		f := resultTooLarge(len(r.Body))
		a.haltLocked(f, f, a.graceLocked())
	default:
		a.result = &r
	}
}

// Usage sets what the work cost.
func (a *attempt) Usage(u []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.seized {
		a.usage = bytes.Clone(u)
	}
}

// say gathers a piece of that size at most, after waiting for room if there is none.
func (a *attempt) say(size int, add func(*packer) bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.overLocked()
	if err == nil {
		a.heardLocked()
		err = a.waitForRoomLocked(size)
	}
	if err == nil {
		err = a.gatherLocked(add)
	}
	if err != nil {
		a.turnedAway = true
	}
	return err
}

// overLocked is the error that ends an executor which goes on speaking.
func (a *attempt) overLocked() error {
	switch {
	case a.why != nil:
		return a.why
	case a.seized:
		return errOver
	}
	return nil
}

// heardLocked notes a sign of life. The first one puts the timer from the clock of
// the first output to that of the next.
func (a *attempt) heardLocked() {
	if !a.clocks.set() {
		return
	}
	now, first := time.Now(), a.clocks.last.IsZero()
	a.clocks.last = now
	if first {
		a.lookAtClocksLocked(now)
	}
}

// waitForRoomLocked waits, without the lock, while the disk is behind by more than
// the buffer holds. A piece that is larger than the buffer waits to be alone.
func (a *attempt) waitForRoomLocked(size int) error {
	size += 2 * entryCost // with what is held back of a character
	s := a.speech
	for s != nil && s.held() > 0 && s.held()+size > mostHeld {
		a.clocks.held = true
		a.mu.Unlock()
		select {
		case <-s.room:
		case <-a.ctx.Done():
		}
		a.mu.Lock()
		a.clocks.held = false
		if err := a.overLocked(); err != nil {
			return err
		}
		a.heardLocked()
	}
	return nil
}

// gatherLocked adds to the speech, and has the writer look at it.
func (a *attempt) gatherLocked(add func(*packer) bool) error {
	if err := a.overLocked(); err != nil {
		return err
	}
	s := a.speechLocked()
	before := s.urgency()
	if !add(&s.packer) {
		f := outputTooLarge()
		a.haltLocked(f, f, a.graceLocked())
		return f
	}
	if s.urgency() > before {
		notify(s.wake)
	}
	return nil
}

// restartLocked tells watchers that what earlier attempts said is superseded.
func (a *attempt) restartLocked() {
	if a.claimed.Job.Attempt > 1 || a.claimed.Job.Cursor > 0 {
		_ = a.gatherLocked((*packer).restart) // if it does not fit the attempt was halted
	}
}
