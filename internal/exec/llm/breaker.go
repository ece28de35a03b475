package llm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
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
// opens when too many calls fail, of more than one key, user or job. Then attempts go back to the queue without a call and at no
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
	window      []callResult    // the last calls, oldest first
	failures    int             // number of consecutive failures
	failing     map[string]bool // the parties of these calls
	lastFailure string          // message of the last failure
	open        bool
	since       time.Time
	openTime    time.Duration // how long the breaker stays open before the next probe
	retryAt     time.Time
	probing     bool          // a probe is running
	lastProbe   string        // the party whose probe failed last
	turnAwayAt  time.Time     // when another attempt may be sent back without a wait
	changed     chan struct{} // closed and replaced when a probe ends
}

type callResult struct {
	at     time.Time
	failed bool
	party  string
}

// caller is the attempt that asks for a permit.
type caller struct {
	// party is the key or the user of the job, or else the job itself. A circuit is about the
	// server, so the failures of one party alone do not open it.
	party string
	// admitted means that the engine lets jobs wait in their queue. Such an attempt is sent back
	// at once, because it would hold a slot of its queue.
	admitted bool
}

func callerOf(t *exec.Task, m *model) caller {
	j := &t.Job
	c := caller{party: "job " + j.ID.String(), admitted: j.Resource == m.Name}
	switch {
	case j.Key != "":
		c.party = "key " + j.Owner.Tenant + "/" + j.Key
	case j.Owner.User != "" && j.Owner.User != "local":
		c.party = "user " + j.Owner.Tenant + "/" + j.Owner.User
	}
	return c
}

func newBreaker(model string, log *slog.Logger) *breaker {
	return &breaker{model: model, log: log, changed: make(chan struct{})}
}

// permit allows one call. One goroutine uses it.
type permit struct {
	breaker   *breaker
	party     string
	probe     bool
	answering bool        // the server has begun to answer
	returned  bool        // finish or release was called
	headers   http.Header // of the answer; nil before it

	// Set by Execute.
	model    *model
	pass     *pass
	began    time.Time
	patience time.Duration // how long the queue's own clocks let a call be without an answer; 0 for no limit
}

// patience returns the shortest clock that bounds how long a server may take to answer.
func patience(t *job.Timeouts) (shortest time.Duration) {
	for _, d := range []time.Duration{t.Request, t.FirstOutput, t.RunSoft, t.RunHard} {
		if d > 0 && (shortest == 0 || d < shortest) {
			shortest = d
		}
	}
	return shortest
}

// acquire returns a permit. While the breaker is open, it waits up to maxWait until the breaker
// closes or this call may be the probe. After maxWait it returns a fault that sends the attempt
// back.
func (b *breaker) acquire(ctx context.Context, out exec.Sink, c caller) (*permit, error) {
	p, changed := b.tryAcquire(time.Now(), c.party)
	if p != nil {
		return p, nil
	}
	if c.admitted && b.turnAway(time.Now()) {
		return nil, b.openFault(time.Now())
	}
	timeout := time.NewTimer(maxWait)
	defer timeout.Stop()
	for {
		probe := time.NewTimer(b.untilProbe(time.Now(), c.party))
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
		if p, changed = b.tryAcquire(time.Now(), c.party); p != nil {
			out.ResetTimeouts() // the wait counts for no timeout of the model
			return p, nil
		}
	}
}

// tryAcquire returns a permit if one is available at the time now. Otherwise it returns the
// channel to wait for.
func (b *breaker) tryAcquire(now time.Time, party string) (*permit, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		return &permit{breaker: b, party: party}, nil
	case !b.probing && !now.Before(b.probeAtLocked(party)):
		b.probing = true
		return &permit{breaker: b, party: party, probe: true}, nil
	}
	return nil, b.changed
}

// probeAtLocked returns when a party may make the next probe. The party whose probe failed lets
// others go first, because it may be the cause.
func (b *breaker) probeAtLocked(party string) time.Time {
	if party == b.lastProbe {
		return b.retryAt.Add(b.openTime)
	}
	return b.retryAt
}

// turnAway reports whether an attempt may be sent back without a wait: one in maxWait, so that
// most jobs keep their position.
func (b *breaker) turnAway(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.turnAwayAt) {
		return false
	}
	b.turnAwayAt = now.Add(maxWait)
	return true
}

// available returns how many more attempts may ask for a permit while the breaker is open: the
// probe, or one that is sent back, so that a job which has waited too long fails. at is when
// another may ask.
func (b *breaker) available(now time.Time) (n int, at time.Time, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return 0, time.Time{}, false
	}
	at = b.turnAwayAt
	if !b.probing && b.retryAt.Before(at) {
		at = b.retryAt
	}
	if !now.Before(at) {
		return 1, time.Time{}, true
	}
	return 0, at, true
}

// untilProbe returns how long to wait for the next probe, unless a running probe ends earlier.
func (b *breaker) untilProbe(now time.Time, party string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.probing {
		return maxWait
	}
	return max(b.probeAtLocked(party).Sub(now), 0)
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
	now := time.Now()
	if p.pass != nil {
		p.pass.accepted(p.headers, true, now)
	}
	p.breaker.answered(p.probe, now)
	if p.model != nil {
		p.model.changed()
	}
}

// answered records that the server has begun to answer a call.
func (b *breaker) answered(probe bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clearFailuresLocked()
	if probe {
		b.closeLocked(now)
	}
}

// finish returns the permit with the call's error, and returns the error of the attempt. While
// the breaker is open, a failure costs no attempt.
func (p *permit) finish(ctx context.Context, err error) error {
	now := time.Now()
	return p.finishAt(ctx, p.settlePass(err, now), now)
}

// settlePass tells the gate how the call ended. It returns the error of the attempt: a wait that
// other jobs caused is not charged to it.
func (p *permit) settlePass(err error, now time.Time) error {
	p.pass.end()
	f, _ := errors.AsType[*job.Fault](err)
	switch {
	case f != nil && f.Code == codeRateLimited:
		refused := *f
		p.logWait(f, now)
		if tooOften := p.pass.refused(f.RetryAfter, now); tooOften {
			refused.Class = job.Final
			refused.Message += fmt.Sprintf("; it has refused this job %d times while it accepted others", maxRefusals)
		}
		f, err = &refused, &refused
	case f != nil && f.Class == job.Wait && f.RetryAfter > 0 && p.headers != nil:
		p.logWait(f, now)
		p.pass.postponed(f.RetryAfter, now)
	case p.answering:
	case p.headers != nil:
		p.pass.accepted(p.headers, err == nil, now)
	default:
		p.pass.cancel() // no answer: nothing is known
	}
	if f == nil || f.Class != job.Wait {
		return err
	}
	waiting := *f
	waiting.ServedAgo = p.model.gate.servedAgo(now)
	return &waiting
}

// logWait logs that the server asks to wait. The jobs that wait for it have no line of their own.
func (p *permit) logWait(f *job.Fault, now time.Time) {
	if p.model.gate.logDue(now) {
		p.breaker.log.Warn("a model's server asks to wait, and its jobs wait in line", "model", p.model.Name, "last", f)
	}
}

func (p *permit) finishAt(ctx context.Context, err error, now time.Time) error {
	p.returned = true
	b := p.breaker
	b.mu.Lock()
	defer b.mu.Unlock()
	switch p.classify(ctx, err, now) {
	case inconclusive:
		p.releaseLocked()
		return err
	case answered:
		b.recordLocked(now, p.party, false)
		if p.probe && !p.answering {
			b.closeLocked(now)
		}
		return err
	}
	f, _ := errors.AsType[*job.Fault](err)
	if f != nil {
		b.lastFailure = f.Message
	}
	b.recordLocked(now, p.evidence(f), true)
	switch {
	case p.probe && !p.answering:
		b.lastProbe = p.party
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

// evidence returns the party to which a failure is due. A server that cannot be reached is not the
// fault of a request, so each such failure counts as that of another party.
func (p *permit) evidence(f *job.Fault) string {
	if f != nil && f.Code == codeUnreachable {
		return nobody
	}
	return p.party
}

// nobody is the party of failures that no request can cause.
const nobody = ""

// release returns a permit whose call did not finish. It does nothing after finish.
func (p *permit) release() {
	if p.returned {
		return
	}
	p.returned = true
	if p.pass != nil {
		p.pass.end()
		p.pass.cancel()
	}
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
func (p *permit) classify(ctx context.Context, err error, now time.Time) callClass {
	f, isFault := errors.AsType[*job.Fault](err)
	switch {
	case err == nil:
		return answered
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), exec.ErrTimeout) && !p.answering:
		return p.classifySilence(now) // it did not begin to answer before the attempt's timeout
	case ctx.Err() != nil || !isFault:
		return inconclusive
	case f.Code == codeTimeout && p.headers == nil:
		return p.classifySilence(now)
	case f.Class == job.Final || f.Code == codeRateLimited || f.Code == codeConflict:
		return answered // it refuses this request or is busy, so it works
	}
	return failed
}

// classifySilence returns the class of a call that a clock ended before the server answered. The
// clock may be the submitter's own, and shorter than the queue's: that proves nothing.
func (p *permit) classifySilence(now time.Time) callClass {
	if p.patience == 0 || now.Sub(p.began) < p.patience {
		return inconclusive
	}
	return failed
}

func (b *breaker) recordLocked(now time.Time, party string, failed bool) {
	if len(b.window) == windowSize {
		b.window = append(b.window[:0], b.window[1:]...)
	}
	b.window = append(b.window, callResult{now, failed, party})
	if !failed {
		b.clearFailuresLocked()
		return
	}
	b.failures++
	if b.failing == nil {
		b.failing = map[string]bool{}
	}
	if len(b.failing) < windowSize {
		b.failing[party] = true
	}
}

func (b *breaker) clearFailuresLocked() {
	b.failures = 0
	clear(b.failing)
}

// shouldOpenLocked reports whether too many of the last calls failed, and not only those of one
// party.
func (b *breaker) shouldOpenLocked(now time.Time) bool {
	if b.failures >= maxConsecutiveFailures && (len(b.failing) > 1 || b.failing[nobody]) {
		return true
	}
	calls, failures := 0, 0
	last := map[string]bool{} // by party, whether its last call failed
	for _, c := range b.window {
		if now.Sub(c.at) > windowAge {
			continue
		}
		calls++
		last[c.party] = c.failed
		if c.failed {
			failures++
		}
	}
	parties := 0
	for _, failed := range last {
		if failed {
			parties++
		}
	}
	return calls >= minWindowCalls && 2*failures >= calls && 2*parties >= len(last) && (parties > 1 || last[nobody])
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
	b.window, b.lastProbe = b.window[:0], ""
	b.clearFailuresLocked()
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
