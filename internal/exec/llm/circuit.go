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

// When a circuit opens, and for how long.
const (
	mostInARow   = 5                // failures, one after the other
	remembered   = 20               // calls that are looked back on,
	fewest       = 10               // when there are so many,
	lookBack     = 30 * time.Second // for so long: half of them may fail, and no more
	firstPause   = time.Second      // before the first probe; doubled for each that fails
	longestPause = time.Minute
	standInLine  = time.Second // how long an attempt keeps its place before it is sent back
)

// CircuitStatus is what keeps a model's server from being called that fails again and
// again, as it is shown.
type CircuitStatus struct {
	Model    string
	Open     bool      // attempts are sent back to wait, but for one probe at a time
	Since    time.Time // it is open; zero when it is not
	RetryAt  time.Time // when the next probe goes; zero when it is not open
	Failures int       // in a row
}

// circuit is the circuit of one model. While it is closed every call passes. When
// too many fail it opens: attempts then end without a call and go back to wait, at
// no cost of an attempt, until one, the probe, was answered.
//
// An attempt that is sent back keeps its place a while before: so jobs are taken
// from the queue at a modest rate, and most of them stay in their order there.
type circuit struct {
	// set once
	model string
	log   *slog.Logger

	mu sync.Mutex
	// guarded by mu
	calls   []outcome // the last ones, oldest first
	inARow  int       // failures since the last answer
	last    string    // what the last one was, for people
	open    bool
	since   time.Time
	pause   time.Duration
	retryAt time.Time
	probing bool
	changed chan struct{} // closed, and made anew, when a probe ends
}

type outcome struct {
	at     time.Time
	failed bool
}

func newCircuit(model string, log *slog.Logger) *circuit {
	return &circuit{model: model, log: log, changed: make(chan struct{})}
}

// pass is the permission to make one call. It is used by one goroutine.
type pass struct {
	c     *circuit
	probe bool
	alive bool // the server has begun to answer
	over  bool
}

// enter lets a call pass. While the circuit is open it waits a while, in which the
// circuit may close, and then sends the attempt back.
func (c *circuit) enter(ctx context.Context, out exec.Sink) (*pass, error) {
	p, changed := c.ask(time.Now())
	if p != nil {
		return p, nil
	}
	line := time.NewTimer(standInLine)
	defer line.Stop()
	for {
		probe := time.NewTimer(c.untilProbe(time.Now()))
		select {
		case <-changed:
		case <-probe.C:
		case <-line.C:
			probe.Stop()
			return nil, c.sendBack(time.Now())
		case <-ctx.Done():
			probe.Stop()
			return nil, context.Cause(ctx)
		}
		probe.Stop()
		if p, changed = c.ask(time.Now()); p != nil {
			out.ResetTimeouts()
			return p, nil
		}
	}
}

// ask is a pass, when there is one at that moment; else it says what to wait for.
func (c *circuit) ask(now time.Time) (*pass, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.open:
		return &pass{c: c}, nil
	case !c.probing && !now.Before(c.retryAt):
		c.probing = true
		return &pass{c: c, probe: true}, nil
	}
	return nil, c.changed
}

// untilProbe is how long until a probe may go, if the one that is out does not say
// more before.
func (c *circuit) untilProbe(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.probing {
		return standInLine
	}
	return max(c.retryAt.Sub(now), 0)
}

// sendBack is the fault of an attempt that was not made.
func (c *circuit) sendBack(now time.Time) *job.Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &job.Fault{Code: "circuit_open", Class: job.Wait, RetryAfter: c.comeBackLocked(now),
		Message: fmt.Sprintf("the server of the model %s fails again and again, and is not asked for a while; the last time: %s", job.Quote(c.model), c.last)}
}

// comeBackLocked is when to come back: after the next probe, each at another time.
func (c *circuit) comeBackLocked(now time.Time) time.Duration {
	return max(c.retryAt.Sub(now), 0) + rand.N(c.pause/4+time.Second)
}

// answers says that the server has begun to answer. A probe need not wait for the
// end: others may follow.
func (p *pass) answers() {
	if p.alive {
		return
	}
	p.alive = true
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.inARow = 0
	if p.probe {
		p.c.closeLocked(time.Now())
	}
}

// end gives the pass back with what the call came to, and returns what the attempt
// comes to: while the server is known to fail, its failures cost no attempt.
func (p *pass) end(ctx context.Context, err error) error { return p.endAt(ctx, err, time.Now()) }

func (p *pass) endAt(ctx context.Context, err error, now time.Time) error {
	p.over = true
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch p.verdict(ctx, err) {
	case unknown:
		p.dropLocked()
		return err
	case answered:
		c.recordLocked(now, false)
		if p.probe && !p.alive {
			c.closeLocked(now)
		}
		return err
	}
	c.recordLocked(now, true)
	f, _ := errors.AsType[*job.Fault](err)
	if f != nil {
		c.last = f.Message
	}
	switch {
	case p.probe && !p.alive:
		c.openLocked(now, min(2*c.pause, longestPause), err)
	case !c.open && c.tooManyLocked(now):
		c.openLocked(now, firstPause, err)
		return err
	}
	if !c.open || f == nil {
		return err
	}
	spared := *f
	spared.Class, spared.RetryAfter = job.Wait, max(f.RetryAfter, c.comeBackLocked(now))
	return &spared
}

// drop gives back a pass whose call did not come to an end.
func (p *pass) drop() {
	if p.over {
		return
	}
	p.over = true
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.dropLocked()
}

// dropLocked lets another be the probe, if this was it.
func (p *pass) dropLocked() {
	if p.probe && !p.alive {
		p.c.probing = false
		p.c.tellLocked()
	}
}

type verdict int

const (
	unknown  verdict = iota // it was not waited for
	answered                // it is there, whatever it thinks of the request
	failed
)

// verdict is what a call says of the server.
func (p *pass) verdict(ctx context.Context, err error) verdict {
	f, isFault := errors.AsType[*job.Fault](err)
	switch {
	case err == nil:
		return answered
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), exec.ErrTimeout) && !p.alive:
		return failed
	case ctx.Err() != nil || !isFault:
		return unknown
	case f.Class == job.Final || f.Code == codeRateLimited || f.Code == codeConflict:
		return answered
	}
	return failed
}

func (c *circuit) recordLocked(now time.Time, failed bool) {
	if len(c.calls) == remembered {
		c.calls = append(c.calls[:0], c.calls[1:]...)
	}
	c.calls = append(c.calls, outcome{now, failed})
	if failed {
		c.inARow++
	} else {
		c.inARow = 0
	}
}

// tooManyLocked says whether the last calls failed too often.
func (c *circuit) tooManyLocked(now time.Time) bool {
	if c.inARow >= mostInARow {
		return true
	}
	all, bad := 0, 0
	for _, o := range c.calls {
		if now.Sub(o.at) > lookBack {
			continue
		}
		all++
		if o.failed {
			bad++
		}
	}
	return all >= fewest && 2*bad >= all
}

// openLocked opens the circuit, or keeps it open, until the next probe: no sooner than
// the server has asked for.
func (c *circuit) openLocked(now time.Time, pause time.Duration, last error) {
	if f, ok := errors.AsType[*job.Fault](last); ok {
		pause = max(pause, min(f.RetryAfter, longestPause))
	}
	if !c.open {
		c.open, c.since = true, now
		c.log.Warn("a model's server fails again and again and is not called for a while", "model", c.model, "failures", c.inARow, "last", last)
	}
	c.pause, c.retryAt = pause, now.Add(pause+rand.N(pause/4))
	c.probing = false
	c.tellLocked()
}

// closeLocked closes an open circuit.
func (c *circuit) closeLocked(now time.Time) {
	c.log.Info("a model's server answers again", "model", c.model, "after", now.Sub(c.since).Round(time.Millisecond).String())
	c.open, c.probing = false, false
	c.since, c.retryAt = time.Time{}, time.Time{}
	c.calls, c.inARow = c.calls[:0], 0
	c.tellLocked()
}

func (c *circuit) tellLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *circuit) show() CircuitStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return CircuitStatus{Model: c.model, Open: c.open, Since: c.since, RetryAt: c.retryAt, Failures: c.inARow}
}
