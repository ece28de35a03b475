package llm

import (
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	firstWindow  = 16                     // unproven calls at once, before anything is known of the server
	provenAfter  = 250 * time.Millisecond // a call without a refusal for this long counts as accepted
	minRefusal   = time.Second            // how long the gate closes after a refusal without a wait; doubled for each further one
	maxRefusal   = time.Minute
	maxClosed    = time.Hour        // how long the gate closes at most, whatever the server asks for
	forgetAfter  = 10 * time.Minute // without a refusal the learned rate is forgotten
	rateGrowth   = 1.0 / 100        // how much faster the pace gets with each accepted call
	maxRefusals  = 20               // of one job while others are accepted; then it fails
	maxRemember  = 4096             // jobs whose refusals are counted
	minRate      = 1.0 / 3600       // calls per second
	waitLogEvery = 10 * time.Minute // how often a wait is logged: a server with a limit asks often
	longestReset = time.Minute      // a longer reset of a limit describes a bucket that fills slowly, or is wrong
	maxPeriod    = time.Minute      // while no limit is known, older calls say nothing about it
	maxLessons   = 2                // refusals of one job among accepted calls from which the gate learns
)

// gate is the line in front of one model. It learns how many calls the server takes, from its
// headers and its refusals (429), and lets calls begin at that pace. So a server with a rate
// limit refuses a handful of calls, and not each job many times.
//
// Three things bound the calls that may begin: the gate is closed after a refusal, for as long as
// the server asks; then calls follow each other at the learned rate; and at most window calls may
// be unproven at once. A call is proven when the server answers with anything but a refusal, or
// has not refused it for provenAfter. The window starts at one after a refusal, and grows with
// each proven call.
type gate struct {
	mu sync.Mutex
	// guarded by mu
	closedUntil time.Time
	rate        float64   // calls per second; 0 while no limit is known
	next        time.Time // when the next call may begin at this rate
	budget      int       // calls that the server's headers still allow until budgetUntil
	budgetUntil time.Time
	window      float64
	active      int     // calls that have begun and not ended
	fresh       []*pass // calls that began less than provenAfter ago, in order
	unproven    int     // of these
	refusals    int     // in a row
	refusedAt   time.Time
	servedAt    time.Time      // when the server last accepted a call
	waited      time.Duration  // how long the gate was or will be closed since then
	counted     period         // since the gate last opened, or the last or the current maxPeriod
	older       period         // the maxPeriod before, while no limit is known
	before      period         // the last period in which calls were accepted
	refusedJobs map[job.ID]int // refusals among accepted calls
	loggedAt    time.Time      // when a wait was last logged
	changed     chan struct{}  // closed and replaced when more calls may begin

	totalRefused int64
}

// period is a time in which the server accepted calls.
type period struct {
	since    time.Time // zero before its first call
	accepted int
}

// pass allows one call to begin. One goroutine uses it.
type pass struct {
	gate   *gate
	job    job.ID
	at     time.Time
	proven bool // guarded by the gate's mu
	ended  bool // guarded by the gate's mu
}

// GateStatus is what a model's gate has learned.
type GateStatus struct {
	Model       string
	Calls       int       // calls now
	RatePerS    float64   // calls a second that the server takes; 0 while no limit is known
	ClosedUntil time.Time // no call begins before; zero while it is open
	Refused     int64     // calls that the server refused since the start (429)
}

func newGate() *gate {
	return &gate{window: firstWindow, refusedJobs: map[job.ID]int{}, changed: make(chan struct{})}
}

// begin lets a call begin. If it may not, it returns nil, the time at which it may (zero if that
// depends on other calls), and a channel that is closed when something has changed.
func (g *gate) begin(id job.ID, now time.Time) (p *pass, at time.Time, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, at := g.availableLocked(now)
	if n < 1 {
		return nil, at, g.changed
	}
	p = &pass{gate: g, job: id, at: now}
	g.active++
	g.fresh = append(g.fresh, p)
	g.unproven++
	if g.rate > 0 {
		g.next = later(g.next, now.Add(-g.burst())).Add(g.interval())
	}
	g.budget--
	if g.rate == 0 && !g.counted.since.IsZero() && now.Sub(g.counted.since) > maxPeriod {
		g.older, g.counted = g.counted, period{}
	}
	if g.counted.since.IsZero() {
		g.counted.since = now
	}
	return p, at, nil
}

// available returns how many calls may begin at the time now, and when more may: zero if that
// depends on other calls.
func (g *gate) available(now time.Time) (n int, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.availableLocked(now)
}

func (g *gate) availableLocked(now time.Time) (n int, at time.Time) {
	g.proveOldLocked(now)
	if now.Before(g.closedUntil) {
		return 0, g.closedUntil
	}
	if g.rate > 0 && now.Sub(g.refusedAt) > forgetAfter {
		g.rate, g.window, g.refusals = 0, max(g.window, firstWindow), 0
	}
	n = int(g.window) - g.unproven
	if len(g.fresh) > 0 {
		at = g.fresh[0].at.Add(provenAfter)
	}
	if now.Before(g.budgetUntil) && g.budget < n {
		n, at = g.budget, g.budgetUntil
	}
	if g.rate > 0 {
		paced := 0
		if !now.Before(g.next) {
			paced = 1 + int(min(now.Sub(g.next), g.burst()).Seconds()*g.rate)
		}
		if paced < n {
			n, at = paced, g.next.Add(time.Duration(paced)*g.interval())
		}
	}
	return max(n, 0), at
}

func (g *gate) interval() time.Duration {
	return time.Duration(float64(time.Second) / g.rate)
}

// burst is how far calls may be behind the pace: a second's worth, so that the timers of a fast
// pace need not be exact.
func (g *gate) burst() time.Duration {
	if g.rate < 2 {
		return 0
	}
	return time.Second / 2
}

// proveOldLocked counts calls as accepted that were not refused for a while.
func (g *gate) proveOldLocked(now time.Time) {
	for len(g.fresh) > 0 {
		p := g.fresh[0]
		if !p.proven && now.Sub(p.at) < provenAfter {
			return
		}
		if !p.proven {
			g.proveLocked(p)
		}
		g.fresh[0] = nil
		g.fresh = g.fresh[1:]
	}
}

// proveLocked marks a call as proven, and lets the window grow.
func (g *gate) proveLocked(p *pass) {
	p.proven = true
	g.unproven--
	if g.window < firstWindow/2 {
		g.window++
	} else {
		g.window += 0.25
	}
}

// end records that the call is over, however it ended.
func (p *pass) end() {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if !p.ended {
		p.ended = true
		g.active--
	}
}

// cancel ends a call that did not reach the server, as if it had not begun.
func (p *pass) cancel() {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.proven {
		return
	}
	p.proven = true
	g.unproven--
	g.budget++
	if g.rate > 0 {
		g.next = g.next.Add(-g.interval())
	}
	g.notifyLocked()
}

// accepted records an answer that is no refusal. served is false for another error.
func (p *pass) accepted(h http.Header, served bool, now time.Time) {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if !p.proven {
		g.proveLocked(p)
	}
	if served {
		g.servedAt, g.waited = now, max(g.closedUntil.Sub(now), 0)
	}
	g.refusals = 0
	g.counted.accepted++
	delete(g.refusedJobs, p.job)
	// The more calls are accepted without a refusal, the faster the pace grows.
	if p.at.After(g.refusedAt) && g.rate > 0 {
		g.rate += g.rate * rateGrowth * (1 + float64(g.counted.accepted)*rateGrowth)
	}
	g.readBudgetLocked(h, now)
	g.notifyLocked()
}

// refused records a refusal. wait is how long the server asks to wait; 0 if it does not say. It
// reports whether the job was refused too often.
func (p *pass) refused(wait time.Duration, now time.Time) (tooOften bool) {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if !p.proven {
		p.proven = true
		g.unproven--
	}
	g.totalRefused++
	if wait == 0 {
		wait = min(minRefusal<<min(g.refusals, 10), maxRefusal)
	}
	wait = min(wait, maxClosed)
	n := g.countRefusalLocked(p.job)
	// A job that is refused again and again among accepted calls may ask for too much itself. It
	// does not hold up the others, and what was learned from it is forgotten.
	if n > maxLessons {
		if n == maxLessons+1 {
			g.rate, g.window = 0, max(g.window, firstWindow)
		}
		g.notifyLocked()
		return n >= maxRefusals
	}
	// Calls that began before the last refusal are part of it: nothing new is learned.
	if !p.at.Before(g.refusedAt) || g.refusedAt.IsZero() {
		g.learnLocked(wait, now)
	}
	// Jitter, so that several processes do not come back at the same moment.
	g.closeLocked(wait+rand.N(wait/20+1), now)
	g.next = g.closedUntil
	g.notifyLocked()
	return n >= maxRefusals
}

// postponed closes the gate because the server is not available and says until when. It says
// nothing about a rate.
func (p *pass) postponed(wait time.Duration, now time.Time) {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if !p.proven {
		p.proven = true
		g.unproven--
	}
	g.closeLocked(min(wait, maxClosed), now)
	g.window = 1
	g.notifyLocked()
}

// logDue reports whether a wait that the server asks for is to be logged now.
func (g *gate) logDue(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	due := g.loggedAt.IsZero() || now.Sub(g.loggedAt) >= waitLogEvery
	if due {
		g.loggedAt = now
	}
	return due
}

// closeLocked closes the gate for a time, unless it is closed for longer.
func (g *gate) closeLocked(wait time.Duration, now time.Time) {
	until := later(g.closedUntil, now.Add(wait))
	g.waited += until.Sub(later(g.closedUntil, now))
	g.closedUntil = until
}

// learnLocked computes the rate from what the server has accepted since the gate last opened, and
// from how long it asks to wait.
func (g *gate) learnLocked(wait time.Duration, now time.Time) {
	g.proveOldLocked(now)
	// A server that accepted nothing since still refuses for the same reason: its limit covers a
	// longer time than it asked to wait.
	if g.counted.accepted > 0 {
		g.before = g.counted
	}
	if g.older.accepted > 0 && now.Sub(g.older.since) < 3*maxPeriod {
		g.before = period{g.older.since, g.older.accepted + g.counted.accepted}
	}
	g.older = period{}
	// A server that never accepted a call has shown no rate. Then only the window grows slowly.
	if g.before.accepted > 0 {
		took := now.Sub(g.before.since) + wait
		g.rate = max(float64(g.before.accepted)/took.Seconds(), minRate)
	}
	g.refusedAt, g.counted = now, period{}
	g.refusals++
	g.window = 1
}

// countRefusalLocked counts a refusal of one job if the call that ended before it was accepted, and
// returns the count. Refusals in a row are about all jobs. But a job that is refused many times
// right after an accepted one would be refused forever.
func (g *gate) countRefusalLocked(id job.ID) int {
	if g.refusals > 0 || g.servedAt.IsZero() {
		return 0
	}
	if len(g.refusedJobs) >= maxRemember {
		clear(g.refusedJobs)
	}
	g.refusedJobs[id]++
	return g.refusedJobs[id]
}

// readBudgetLocked reads how many calls the server still takes, if its headers say so.
func (g *gate) readBudgetLocked(h http.Header, now time.Time) {
	b, ok := readBudget(h, now)
	if !ok {
		return
	}
	reset := b.reset
	if reset > longestReset {
		// A bucket that is full after hours takes the next call long before.
		reset = time.Duration(float64(reset) / math.Max(float64(b.limit-b.remaining), 1))
	}
	// Calls without an answer may not be counted by the server yet.
	g.budget, g.budgetUntil = max(b.remaining-g.unproven, 0), now.Add(min(reset, longestReset))
}

// servedAgo returns how long ago the server last accepted a call, without the time for which the
// gate was closed; 0 if it never did. Calls that the server has not refused count as accepted.
func (g *gate) servedAgo(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.active > 0 {
		return 1
	}
	if g.servedAt.IsZero() {
		return 0
	}
	closed := g.waited - max(g.closedUntil.Sub(now), 0)
	return max(now.Sub(g.servedAt)-closed, 1)
}

func (g *gate) notifyLocked() {
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *gate) status(model string, now time.Time) GateStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := GateStatus{Model: model, RatePerS: g.rate, Refused: g.totalRefused}
	if now.Before(g.closedUntil) {
		s.ClosedUntil = g.closedUntil
	}
	return s
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
