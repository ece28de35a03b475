package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// history is what happens at random to processes on one place, and what their callers,
// watchers and workers were told of it.
type history struct {
	t    *testing.T
	p    *place
	dice *rand.Rand
	bus  *lossy

	asking sync.WaitGroup // what was asked for and is not answered
	stop   context.CancelFunc
	ctx    context.Context

	mu sync.Mutex
	// Guarded by mu.
	limits  engine.Queue // as the configuration is now
	slots   int          // of each worker
	members []*worker    // one in each living process
	held    map[job.Lease]*hold
	past    []job.Lease // that hold nothing any more, for certain
	jobs    map[job.ID]*known
	order   []job.ID // the keys of jobs, in the order of the submits
	files   map[job.ID]int
	broken  []string
	left    int // processes that have ended
	began   time.Time
	notes   []string // what happened last
}

// worker is a process and the worker in it.
type worker struct {
	*member
	limits  engine.Queue
	slots   int
	used    int // slots, since it began to serve
	stint   int // how often it began
	serving bool
	leave   func()
	broken  int // until its store has seen so many commits some of them break
}

// hold is a job that a worker has.
type hold struct {
	w         *worker
	stint     int
	c         job.Claimed
	silent    bool // the worker is not there any more, although its process is
	cancelled bool // it was told to stop
	ending    bool // its end is under way
	unsure    bool // it was, and nobody knows what became of that
	seq       int64
}

// known is what callers were told of a job.
type known struct {
	owner     job.Owner
	id        job.ID
	stopped   bool // its end was asked for: its worker may lose it, once the grace is over
	asked     bool // a delete was asked for
	deleted   bool // and acknowledged
	cancelled bool // a cancel was acknowledged, before it had ended
	retried   bool // a retry was asked for
	files     bool
}

// The renewals of a history, and what a stall of one process's disk may take: its
// renewals then still come in time.
const (
	historyLease = 6 * time.Second
	historyRenew = 2 * time.Second
)

func newHistory(t *testing.T, p *place, seed uint64) *history {
	h := &history{
		t: t, p: p, dice: rand.New(rand.NewPCG(seed, 7)), bus: &lossy{},
		began: time.Now(), slots: 3, held: map[job.Lease]*hold{}, jobs: map[job.ID]*known{}, files: map[job.ID]int{},
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.bus.lost.Store([]int64{0, 50, 100}[seed%3])
	h.limits = queues()[0]
	h.limits.MaxDepth, h.limits.MaxAttempts, h.limits.Files = 1000, 3, true
	h.limits.MaxRunning, h.limits.KeyRunning = 4, 2
	h.limits.Policy.Timeouts.Lease, h.limits.Policy.Timeouts.CancelGrace = historyLease, 3*time.Second
	return h
}

// note remembers what happened, for the one who wants to know why.
func (h *history) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noteLocked(format, args...)
}

func (h *history) noteLocked(format string, args ...any) {
	h.notes = append(h.notes[max(0, len(h.notes)-80):], fmt.Sprintf("%7.3f ", time.Since(h.began).Seconds())+fmt.Sprintf(format, args...))
}

func (h *history) breaks(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.breaksLocked(format, args...)
}

func (h *history) breaksLocked(format string, args ...any) {
	h.broken = append(h.broken, fmt.Sprintf(format, args...))
}

// join starts a process with a worker.
func (h *history) join(dead ...job.Process) {
	h.mu.Lock()
	w := &worker{limits: h.limits, slots: h.slots}
	h.mu.Unlock()
	w.member = h.p.start(h.t, engine.Config{
		Queues: []engine.Queue{w.limits}, Bus: h.bus, RenewEvery: historyRenew, DeadProcesses: dead,
		RemoveFiles: func(ids []job.ID) { h.removed(w, ids) },
	})
	h.note("%x starts", w.id[:2])
	h.mu.Lock()
	h.members = append(h.members, w)
	h.mu.Unlock()
	h.serve(w)
	go h.renew(w)
}

var _ bus.Bus = (*lossy)(nil)

func (h *history) serve(w *worker) {
	h.mu.Lock()
	w.serving, w.used = true, 0
	w.stint++
	h.mu.Unlock()
	w.leave = w.Consume(job.Worker{
		Name: "w", Queue: "sim", Slots: w.slots,
		Deliver: func(c job.Claimed) { h.deliver(w, c) },
		Order:   func(l job.Lease, o job.Order) { h.ordered(w, l, o) },
	})
}

// deliver takes a job for a worker: no other may have it who is healthy.
func (h *history) deliver(w *worker, c job.Claimed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.link.dead.Load() {
		return
	}
	for l, other := range h.held {
		if l.Job != c.Job.ID {
			continue
		}
		if h.healthyLocked(other) {
			h.breaksLocked("%s was given out while its worker is alive", l.Job)
		}
		h.loseLocked(other)
	}
	h.noteLocked("%x gives out %s", w.id[:2], c.Job.ID)
	h.held[c.Lease()] = &hold{w: w, stint: w.stint, c: c, seq: c.Job.Cursor}
	w.used++
	has := 0
	for _, x := range h.held {
		if x.w == w && x.stint == w.stint && !x.ending { // one that ends may be answered already
			has++
		}
	}
	if has > w.slots {
		h.breaksLocked("a worker has %d jobs and %d slots", has, w.slots)
	}
}

// healthyLocked says that nobody may take the job from its worker.
func (h *history) healthyLocked(x *hold) bool {
	k := h.jobs[x.c.Job.ID]
	return !x.silent && !x.ending && !x.unsure && (k == nil || !k.stopped)
}

// loseLocked takes a job from its worker.
func (h *history) loseLocked(x *hold) {
	l := x.c.Lease()
	if h.held[l] == x {
		delete(h.held, l)
		if x.stint == x.w.stint {
			x.w.used--
		}
		h.past = append(h.past, l)
	}
}

func (h *history) ordered(w *worker, l job.Lease, o job.Order) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.held[l]
	if x == nil || w.link.dead.Load() {
		return
	}
	h.noteLocked("%x orders %v of %s", w.id[:2], o, l.Job)
	if o == job.OrderLost {
		if h.healthyLocked(x) {
			h.breaksLocked("the lease on %s was taken from a worker that is alive", l.Job)
		}
		h.loseLocked(x)
		return
	}
	x.cancelled = true
}

// renew renews what a worker holds, as runners do, until its process has ended.
func (h *history) renew(w *worker) {
	tick := time.NewTicker(historyRenew)
	defer tick.Stop()
	for {
		select {
		case <-w.gone:
			return
		case <-tick.C:
		}
		h.mu.Lock()
		var all []job.Lease
		for l, x := range h.held {
			if x.w == w && !x.silent {
				all = append(all, l)
			}
		}
		h.mu.Unlock()
		if len(all) == 0 {
			continue
		}
		go func() {
			ctx, stop := context.WithTimeout(h.ctx, historyRenew)
			defer stop()
			for i, err := range w.Renew(ctx, all) {
				h.note("%x renews %s: %v", w.id[:2], all[i].Job, err)
				if job.CodeOf(err) == job.LeaseLost {
					h.renewalRefused(w, all[i])
				}
			}
		}()
	}
}

func (h *history) renewalRefused(w *worker, l job.Lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if x := h.held[l]; x != nil && !w.link.dead.Load() {
		if h.healthyLocked(x) {
			h.breaksLocked("the lease on %s was lost while its worker renewed it", l.Job)
		}
		h.loseLocked(x)
	}
}

func (h *history) removed(w *worker, ids []job.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		if w.link.dead.Load() {
			continue
		}
		h.files[id]++
		if x := h.jobs[id]; x != nil && !x.asked {
			h.breaksLocked("the files of %s were removed, and nobody deleted it", id)
		}
	}
}

// leave ends a process: as kill -9 does, or in good order, with its work handed back.
func (h *history) leave(i int, kill bool) *worker {
	h.mu.Lock()
	w := h.members[i]
	h.members = append(h.members[:i:i], h.members[i+1:]...)
	h.mu.Unlock()
	h.note("%x ends, killed: %t", w.id[:2], kill)
	if kill {
		w.link.dead.Store(true)
	} else {
		w.leave()
		for _, x := range h.holdings(w) {
			h.end(x, w, job.Outcome{Released: true})
		}
		w.stop()
	}
	h.mu.Lock()
	h.left++
	for _, x := range h.held {
		if x.w == w {
			h.loseLocked(x)
			h.past = h.past[:len(h.past)-1] // its lease holds until it is over
		}
	}
	h.mu.Unlock()
	w.kill()
	return w
}

func (h *history) holdings(w *worker) (list []*hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.held {
		if w == nil || x.w == w {
			list = append(list, x)
		}
	}
	return list
}

// end ends an attempt, through whichever process its worker speaks to.
func (h *history) end(x *hold, by *worker, o job.Outcome) {
	h.mu.Lock()
	if x.ending || h.held[x.c.Lease()] != x {
		h.mu.Unlock()
		return
	}
	x.ending = true
	h.mu.Unlock()
	_, err := by.Finish(h.ctx, x.c.Lease(), o)
	h.note("%x ends %s: %v", by.id[:2], x.c.Job.ID, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case x.w.link.dead.Load():
	case err == nil || job.CodeOf(err) == job.LeaseLost:
		h.loseLocked(x)
	default: // it may be on disk
		x.ending, x.unsure = false, true
	}
}

// word is what a job says that nobody else does.
func word(id job.ID, seq int64) string { return fmt.Sprintf("%s %d;", id, seq) }

// say appends a word of a job's own.
func (h *history) say(x *hold) {
	h.mu.Lock()
	if x.ending || x.silent || h.held[x.c.Lease()] != x {
		h.mu.Unlock()
		return
	}
	x.ending = true // one write at a time
	seq := x.seq + 1
	h.mu.Unlock()
	err := x.w.Append(h.ctx, x.c.Lease(), []job.Entry{{Seq: seq, Attempt: x.c.Job.Attempt, Kind: job.KindText, Events: 1, Data: []byte(word(x.c.Job.ID, seq))}}, nil)
	h.mu.Lock()
	defer h.mu.Unlock()
	x.ending = false
	if err == nil {
		x.seq = seq
	}
}

// ask does something by itself, and is waited for.
func (h *history) ask(do func()) {
	h.asking.Go(do)
}

func (h *history) one(n int) int { return h.dice.IntN(n) }

func (h *history) member() *worker {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.members[h.one(len(h.members))]
}

func (h *history) aJob() *known {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.order) == 0 {
		return nil
	}
	n := min(len(h.order), 12) // mostly one that has not ended
	if h.one(4) == 0 {
		n = len(h.order)
	}
	return h.jobs[h.order[len(h.order)-1-h.one(n)]]
}

func (h *history) submit(w *worker) {
	o := job.Owner{Tenant: []string{"", "a", "b"}[h.one(3)], User: "u"}
	req := engine.Request{ID: job.NewID(), Owner: o, Queue: "sim", Key: []string{"", "k", "l"}[h.one(3)], Priority: 4 + h.one(3)}
	if h.one(4) == 0 {
		req.Delay = time.Duration(h.one(5000)) * time.Millisecond
	}
	x := &known{owner: o, id: req.ID}
	if x.files = h.one(4) == 0; x.files {
		req.Files = []job.File{{Name: "f", Size: 1}}
	}
	h.ask(func() {
		_, _, err := w.Submit(h.ctx, req)
		h.mu.Lock()
		defer h.mu.Unlock()
		if err == nil && !w.link.dead.Load() {
			h.jobs[x.id] = x
			h.order = append(h.order, x.id)
		}
	})
}

// step does one thing by one of the processes. What is refused is refused.
func (h *history) step() {
	w := h.member()
	switch h.one(12) {
	case 0, 1, 2, 3:
		h.submit(w)
	case 4, 5, 6, 7:
		if all := h.holdings(nil); len(all) > 0 {
			h.work(all[h.one(len(all))])
		}
	case 8:
		paused := h.one(2) == 0
		h.ask(func() { _, _ = w.SetPaused(h.ctx, "sim", paused) })
	default:
		if x := h.aJob(); x != nil {
			h.change(w, x)
		}
	}
}

// work is what a worker does with a job that it has.
func (h *history) work(x *hold) {
	outcome := []job.Outcome{{}, {}, {Fault: &job.Fault{Code: "x", Message: "x", Class: job.Retryable}}, {Released: true}}[h.one(4)]
	switch h.one(8) {
	case 0:
		h.mu.Lock()
		x.silent = true
		h.mu.Unlock()
	case 1, 2:
		h.ask(func() { h.say(x) })
	default:
		by := x.w
		if h.one(4) == 0 {
			by = h.member()
		}
		h.ask(func() { h.end(x, by, outcome) })
	}
}

// change is what an owner asks for.
func (h *history) change(w *worker, x *known) {
	verb := h.one(4)
	h.mu.Lock()
	switch verb {
	case 1:
		x.retried = true
	default:
		x.stopped, x.asked = true, x.asked || verb == 0
	}
	h.mu.Unlock()
	h.ask(func() {
		switch verb {
		case 0:
			err := w.Delete(h.ctx, x.owner, x.id)
			h.mu.Lock()
			defer h.mu.Unlock()
			x.deleted = x.deleted || err == nil && !w.link.dead.Load()
		case 1:
			_, _ = w.Retry(h.ctx, x.owner, x.id)
		default:
			snap, err := w.Cancel(h.ctx, x.owner, x.id)
			h.mu.Lock()
			defer h.mu.Unlock()
			if err == nil && !w.link.dead.Load() && (!snap.State.Ended() || snap.State == job.Cancelled) {
				x.cancelled = true
			}
		}
	})
}

// fault breaks the next commits of a process, or the disk.
func (h *history) fault(w *worker) {
	step := []faulty.Step{faulty.BeforeCommit, faulty.LostBeforeCommit, faulty.LostAfterCommit, faulty.LostAfterCommit}[h.one(4)]
	faults := make([]faulty.Fault, 1+h.one(3))
	for i := range faults {
		faults[i].Step = step
	}
	h.breakNext(w, fmt.Sprint("step ", step), faults...)
}

// breakNext breaks the next commits of a process, unless some are to break already: a
// process of which no commit succeeds for as long as a lease loses its work.
func (h *history) breakNext(w *worker, how string, faults ...faulty.Fault) {
	if w.store.Commits() < w.broken {
		return
	}
	w.broken = w.store.Commits() + len(faults)
	h.note("%x: %d commits break: %s", w.id[:2], len(faults), how)
	w.store.Next(faults...)
}

// reform is a change of the configuration: all processes start anew with it.
func (h *history) reform() {
	h.mu.Lock()
	h.limits.MaxRunning, h.limits.KeyRunning = []int{0, 1, 4, 6}[h.one(4)], []int{0, 1, 2}[h.one(3)]
	n := len(h.members)
	h.mu.Unlock()
	for range n {
		h.leave(0, false)
		h.join()
	}
}

// restart ends a process and starts another, which may know that the former is dead.
func (h *history) restart() (killed bool) {
	killed = h.one(2) == 0
	h.mu.Lock()
	i := h.one(len(h.members))
	h.mu.Unlock()
	w := h.leave(i, killed)
	if killed && h.one(2) == 0 {
		h.join(w.id)
		return killed
	}
	h.join()
	return killed
}

// obey ends what was cancelled, most of the time.
func (h *history) obey() {
	for _, x := range h.holdings(nil) {
		h.mu.Lock()
		stop := x.cancelled && !x.silent
		h.mu.Unlock()
		if stop && h.one(3) > 0 {
			h.ask(func() { h.end(x, x.w, job.Outcome{Cancelled: true}) })
		}
	}
}

// verdict fails the test with all that was broken so far.
func (h *history) verdict() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.broken) > 0 {
		h.t.Fatalf("%d promises broken:\n%s\nbefore:\n%s", len(h.broken), strings.Join(h.broken, "\n"), strings.Join(h.notes, "\n"))
	}
}

// close ends all.
func (h *history) close() {
	h.stop()
	for len(h.members) > 0 {
		h.leave(0, true)
	}
	synctest.Wait()
}
