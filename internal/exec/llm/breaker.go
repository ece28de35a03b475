package llm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The conditions under which a breaker opens, and its times.
const (
	maxConsecutiveFailures = 5                // number that opens the breaker
	windowSize             = 20               // maximum number of calls in the window
	minWindowCalls         = 10               // from this number of calls on, the breaker opens if half of them failed
	windowAge              = 30 * time.Second // older calls leave the window
	minOpenTime            = time.Second      // time before the first probe; each failed probe doubles it
	maxOpenTime            = time.Minute      // maximum time before a later probe
	maxWait                = time.Second      // how long an attempt waits before it is sent back
)

// CircuitStatus is the state of a model's circuit breaker.
type CircuitStatus struct {
	Model    string
	Open     bool      // attempts are sent back to the queue, except for one probe at a time
	Since    time.Time // when it opened; zero while it is closed
	RetryAt  time.Time // when the next probe may be made; zero while it is closed
	Failures int       // consecutive failures
}

// breaker is the circuit breaker of one model. While it is closed, every call is permitted. It
// opens when too many calls fail. Then attempts go back to the queue without a call and at no
// cost, until one call, the probe, is answered.
//
// An attempt waits maxWait before it is sent back. This limits the rate at which an open breaker
// takes jobs from the queue, so most jobs keep their position.
type breaker struct {
	// set once
	model string
	log   *slog.Logger

	mu sync.Mutex
	// guarded by mu
	window      []callResult // the last calls, oldest first
	failures    int          // number of consecutive failures
	lastFailure string       // message of the last failure
	open        bool
	since       time.Time
	openTime    time.Duration // how long the breaker stays open before the next probe
	retryAt     time.Time
	probing     bool          // a probe is running
	changed     chan struct{} // closed and replaced when a probe ends
}

type callResult struct {
	at     time.Time
	failed bool
}

func newBreaker(model string, log *slog.Logger) *breaker {
	return &breaker{model: model, log: log, changed: make(chan struct{})}
}

// permit allows one call. One goroutine uses it.
type permit struct {
	breaker   *breaker
	probe     bool
	answering bool // the server has begun to answer
	returned  bool // finish or release was called
}

// acquire returns a permit. While the breaker is open, it waits up to maxWait until the breaker
// closes or this call may be the probe. After maxWait it returns a fault that sends the attempt
// back.
func (b *breaker) acquire(ctx context.Context, out exec.Sink) (*permit, error) {
	p, changed := b.tryAcquire(time.Now())
	if p != nil {
		return p, nil
	}
	timeout := time.NewTimer(maxWait)
	defer timeout.Stop()
	for {
		probe := time.NewTimer(b.untilProbe(time.Now()))
		select {
		case <-changed:
		case <-probe.C:
		case <-timeout.C:
			probe.Stop()
			return nil, b.openFault(time.Now())
		case <-ctx.Done():
			probe.Stop()
			return nil, context.Cause(ctx)
		}
		probe.Stop()
		if p, changed = b.tryAcquire(time.Now()); p != nil {
			out.ResetTimeouts() // the wait counts for no timeout of the model
			return p, nil
		}
	}
}

// tryAcquire returns a permit if one is available at the time now. Otherwise it returns the
// channel to wait for.
func (b *breaker) tryAcquire(now time.Time) (*permit, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		return &permit{breaker: b}, nil
	case !b.probing && !now.Before(b.retryAt):
		b.probing = true
		return &permit{breaker: b, probe: true}, nil
	}
	return nil, b.changed
}

// untilProbe returns how long to wait for the next probe, unless a running probe ends earlier.
func (b *breaker) untilProbe(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.probing {
		return maxWait
	}
	return max(b.retryAt.Sub(now), 0)
}

// openFault returns the fault of an attempt that got no permit.
func (b *breaker) openFault(now time.Time) *job.Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &job.Fault{Code: "circuit_open", Class: job.Wait, RetryAfter: b.retryAfterLocked(now),
		Message: fmt.Sprintf("the server of the model %s keeps failing and is not called for a while; its last failure: %s", job.Quote(b.model), b.lastFailure)}
}

// retryAfterLocked returns when an attempt should come back: after the next probe, plus a random
// time.
func (b *breaker) retryAfterLocked(now time.Time) time.Duration {
	return max(b.retryAt.Sub(now), 0) + rand.N(b.openTime/4+time.Second)
}

// markAnswering records that the server has begun to answer. If the call is a probe, the breaker
// closes now, without waiting for the end of the answer.
func (p *permit) markAnswering() {
	if p.answering {
		return
	}
	p.answering = true
	p.breaker.mu.Lock()
	defer p.breaker.mu.Unlock()
	p.breaker.failures = 0
	if p.probe {
		p.breaker.closeLocked(time.Now())
	}
}

// finish returns the permit with the call's error, and returns the error of the attempt. While
// the breaker is open, a failure costs no attempt.
func (p *permit) finish(ctx context.Context, err error) error {
	return p.finishAt(ctx, err, time.Now())
}

func (p *permit) finishAt(ctx context.Context, err error, now time.Time) error {
	p.returned = true
	b := p.breaker
	b.mu.Lock()
	defer b.mu.Unlock()
	switch p.classify(ctx, err) {
	case inconclusive:
		p.releaseLocked()
		return err
	case answered:
		b.recordLocked(now, false)
		if p.probe && !p.answering {
			b.closeLocked(now)
		}
		return err
	}
	b.recordLocked(now, true)
	f, _ := errors.AsType[*job.Fault](err)
	if f != nil {
		b.lastFailure = f.Message
	}
	switch {
	case p.probe && !p.answering:
		b.openLocked(now, min(2*b.openTime, maxOpenTime), err)
	case !b.open && b.shouldOpenLocked(now):
		b.openLocked(now, minOpenTime, err)
		return err // the breaker was closed when this call began, so the failure counts
	}
	if !b.open || f == nil {
		return err
	}
	// The server is known to fail, so the job is not the cause of this failure.
	waiting := *f
	waiting.Class, waiting.RetryAfter = job.Wait, max(f.RetryAfter, b.retryAfterLocked(now))
	return &waiting
}

// release returns a permit whose call did not finish. It does nothing after finish.
func (p *permit) release() {
	if p.returned {
		return
	}
	p.returned = true
	p.breaker.mu.Lock()
	defer p.breaker.mu.Unlock()
	p.releaseLocked()
}

// releaseLocked lets another call be the probe, if this call was it.
func (p *permit) releaseLocked() {
	if p.probe && !p.answering {
		p.breaker.probing = false
		p.breaker.notifyLocked()
	}
}

// callClass is the state of the server that a call indicates.
type callClass int

const (
	inconclusive callClass = iota // the call was stopped by this side
	answered                      // the server works, even if it refused the request
	failed
)

// classify returns the class of a call that ended with err.
func (p *permit) classify(ctx context.Context, err error) callClass {
	f, isFault := errors.AsType[*job.Fault](err)
	switch {
	case err == nil:
		return answered
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), exec.ErrTimeout) && !p.answering:
		return failed // it did not begin to answer before the attempt's timeout
	case ctx.Err() != nil || !isFault:
		return inconclusive
	case f.Class == job.Final || f.Code == codeRateLimited || f.Code == codeConflict:
		return answered // it refuses this request or is busy, so it works
	}
	return failed
}

func (b *breaker) recordLocked(now time.Time, failed bool) {
	if len(b.window) == windowSize {
		b.window = append(b.window[:0], b.window[1:]...)
	}
	b.window = append(b.window, callResult{now, failed})
	if failed {
		b.failures++
	} else {
		b.failures = 0
	}
}

// shouldOpenLocked reports whether too many of the last calls failed.
func (b *breaker) shouldOpenLocked(now time.Time) bool {
	if b.failures >= maxConsecutiveFailures {
		return true
	}
	calls, failures := 0, 0
	for _, c := range b.window {
		if now.Sub(c.at) > windowAge {
			continue
		}
		calls++
		if c.failed {
			failures++
		}
	}
	return calls >= minWindowCalls && 2*failures >= calls
}

// openLocked opens the breaker, or keeps it open, until the next probe. The time until the probe
// is at least the time that the server asked for, but at most maxOpenTime.
func (b *breaker) openLocked(now time.Time, openTime time.Duration, last error) {
	// A wait longer than maxOpenTime applies only to this job, through its fault.
	if f, ok := errors.AsType[*job.Fault](last); ok {
		openTime = max(openTime, min(f.RetryAfter, maxOpenTime))
	}
	if !b.open {
		b.open, b.since = true, now
		b.log.Warn("a model's server keeps failing and is not called for a while", "model", b.model, "failures", b.failures, "last", last)
	}
	// Jitter, so that the breakers of several processes do not probe at the same moment.
	b.openTime, b.retryAt = openTime, now.Add(openTime+rand.N(openTime/4))
	b.probing = false
	b.notifyLocked()
}

func (b *breaker) closeLocked(now time.Time) {
	b.log.Info("a model's server answers again", "model", b.model, "after", now.Sub(b.since).Round(time.Millisecond).String())
	b.open, b.probing = false, false
	b.since, b.retryAt = time.Time{}, time.Time{}
	b.window, b.failures = b.window[:0], 0
	b.notifyLocked()
}

func (b *breaker) notifyLocked() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *breaker) status() CircuitStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	return CircuitStatus{Model: b.model, Open: b.open, Since: b.since, RetryAt: b.retryAt, Failures: b.failures}
}
