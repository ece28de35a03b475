package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// history is a random history of a cluster's processes, with the answers that callers, watchers
// and workers got.
type history struct {
	t       *testing.T
	cluster *cluster
	rng     *rand.Rand
	bus     *lossyBus
	room    atomic.Int64 // the limit of resource "b" in each process
	// roomUnreported is true if no RoomChanged followed a limit that may have risen.
	roomUnreported bool

	pending sync.WaitGroup // calls without an answer
	stop    context.CancelFunc
	ctx     context.Context

	mu sync.Mutex
	// Guarded by mu.
	limits         engine.Queue // the current configuration
	slots          int          // slots of each worker
	processes      []*worker    // the running processes, each with a worker
	attempts       map[job.Lease]*attempt
	voidLeases     []job.Lease // leases that are certainly void
	jobs           map[job.ID]*knownJob
	order          []job.ID // the keys of jobs in the order of their submits
	files          map[job.ID]int
	violations     []string
	endedProcesses int // number of ended processes
	formerLimits   []formerLimits
	startedAt      time.Time
	notes          []string // the latest events
}

// formerLimits are the limits of a process that has ended.
type formerLimits struct {
	running, keyRunning int
	until               time.Time // when they have stopped to hold, at the latest
}

// announcementLife is how long the limits of a killed process hold.
const announcementLife = 90 * time.Second

// worker is a process and its worker.
type worker struct {
	*process
	limits        engine.Queue
	slots         int
	usedSlots     int // slots used since it last began to consume
	consumption   int // how many times it began to consume
	consuming     bool
	stopConsuming func()
	faultsUntil   int // the number of the last commit that will fail
}

// attempt is a job that a worker is running.
type attempt struct {
	w           *worker
	consumption int
	claim       job.Claimed
	silent      bool // the worker is dead, but not its process
	cancelled   bool // a cancel was ordered
	ending      bool // a write by its worker is pending
	uncertain   bool // the outcome of its finish is unknown
	seq         int64
}

// knownJob is a job as its callers know it.
type knownJob struct {
	owner           job.Owner
	id              job.ID
	endRequested    bool // a cancel or a delete was called, so its worker may lose it after the grace
	deleteRequested bool // a delete was called
	deleted         bool // the delete was acknowledged
	cancelled       bool // a cancel was acknowledged while it had not ended
	retryRequested  bool // a retry was called
	files           bool
}

// The lease and the renewal interval of a history. Single processes stall for less than what is
// left of a lease after two intervals, so their renewals still come in time.
const (
	historyLease = 6 * time.Second
	historyRenew = 2 * time.Second
)

// maxRoom has the highest limits of the resources in each process. Resource "c" has no limit.
var maxRoom = map[string]int64{"a": 1, "b": 2}

func newHistory(t *testing.T, p *cluster, seed uint64) *history {
	h := &history{
		t: t, cluster: p, rng: rand.New(rand.NewPCG(seed, 7)), bus: &lossyBus{},
		startedAt: time.Now(), slots: 3, attempts: map[job.Lease]*attempt{}, jobs: map[job.ID]*knownJob{}, files: map[job.ID]int{},
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.bus.lossPercent.Store([]int64{0, 50, 100}[seed%3])
	h.limits = queues()[0]
	h.limits.MaxDepth, h.limits.MaxAttempts, h.limits.Files = 1000, 3, true
	h.limits.Resource = func(input []byte) string { return string(input) }
	h.room.Store(maxRoom["b"])
	h.limits.MaxRunning, h.limits.KeyRunning = 4, 2
	h.limits.Policy.Timeouts.Lease, h.limits.Policy.Timeouts.CancelGrace = historyLease, 3*time.Second
	return h
}

// note adds an event to the report of a failure.
func (h *history) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noteLocked(format, args...)
}

func (h *history) noteLocked(format string, args ...any) {
	h.notes = append(h.notes[max(0, len(h.notes)-80):], fmt.Sprintf("%7.3f ", time.Since(h.startedAt).Seconds())+fmt.Sprintf(format, args...))
}

func (h *history) violation(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.violationLocked(format, args...)
}

func (h *history) violationLocked(format string, args ...any) {
	h.violations = append(h.violations, fmt.Sprintf(format, args...))
}

// startProcess starts a process with a worker.
func (h *history) startProcess(dead ...job.Process) {
	h.mu.Lock()
	w := &worker{limits: h.limits, slots: h.slots}
	h.mu.Unlock()
	w.process = h.cluster.startProcess(h.t, engine.Config{
		Queues: []engine.Queue{w.limits}, Bus: h.bus, RenewEvery: historyRenew, DeadProcesses: dead,
		RemoveFiles:    func(ids []job.ID) { h.filesRemoved(w, ids) },
		ResourceLimits: h.resourceLimits,
	})
	h.note("%x starts", w.id[:2])
	h.mu.Lock()
	h.processes = append(h.processes, w)
	h.mu.Unlock()
	h.startWorker(w)
	go h.renew(w)
}

var _ bus.Bus = (*lossyBus)(nil)

func (h *history) startWorker(w *worker) {
	h.mu.Lock()
	w.consuming, w.usedSlots = true, 0
	w.consumption++
	h.mu.Unlock()
	w.stopConsuming = w.Consume(job.Worker{
		Name: "w", Queue: "sim", Slots: w.slots,
		Deliver: func(c job.Claimed) { h.deliver(w, c) },
		Order:   func(l job.Lease, o job.Order) { h.handleOrder(w, l, o) },
	})
}

// deliver records a job that a worker received. It is a violation if a healthy worker is running
// the job.
func (h *history) deliver(w *worker, c job.Claimed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.link.killed.Load() {
		return
	}
	for l, other := range h.attempts {
		if l.Job != c.Job.ID {
			continue
		}
		if h.healthyLocked(other) {
			h.violationLocked("%s was delivered while a healthy worker has it", l.Job)
		}
		h.loseLocked(other)
	}
	h.noteLocked("%x delivers %s", w.id[:2], c.Job.ID)
	h.attempts[c.Lease()] = &attempt{w: w, consumption: w.consumption, claim: c, seq: c.Job.Cursor}
	w.usedSlots++
	has := 0
	for _, x := range h.attempts {
		if x.w == w && x.consumption == w.consumption && !x.ending { // a pending finish may have freed its slot
			has++
		}
	}
	h.checkRoomLocked(w, c.Job.Resource)
	if has > w.slots {
		h.violationLocked("a worker has %d jobs and %d slots", has, w.slots)
	}
}

// checkRoomLocked checks that a process holds no more jobs of a resource than it may.
func (h *history) checkRoomLocked(w *worker, resource string) {
	limit, limited := maxRoom[resource]
	if !limited {
		return
	}
	n := int64(0)
	for _, x := range h.attempts {
		if x.w == w && x.claim.Job.Resource == resource && !x.ending && !x.uncertain {
			n++
		}
	}
	if n > limit {
		h.violationLocked("a process has %d jobs of the resource %s, and the limit is %d", n, resource, limit)
	}
}

func (h *history) resourceLimits() map[string]int {
	return map[string]int{"a": int(maxRoom["a"]), "b": int(h.room.Load())}
}

// changeRoom changes the limit of a resource, and mostly reports it to the processes.
func (h *history) changeRoom() {
	h.room.Store(h.rng.Int64N(maxRoom["b"] + 1))
	if h.roomUnreported = h.intn(4) == 0; h.roomUnreported {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.processes {
		w.RoomChanged()
	}
}

// healthyLocked reports whether the worker of an attempt may lose its job only by its own
// actions.
func (h *history) healthyLocked(x *attempt) bool {
	k := h.jobs[x.claim.Job.ID]
	return !x.silent && !x.ending && !x.uncertain && (k == nil || !k.endRequested)
}

// loseLocked records that a worker has lost its job.
func (h *history) loseLocked(x *attempt) {
	l := x.claim.Lease()
	if h.attempts[l] == x {
		delete(h.attempts, l)
		if x.consumption == x.w.consumption {
			x.w.usedSlots--
		}
		h.voidLeases = append(h.voidLeases, l)
	}
}

func (h *history) handleOrder(w *worker, l job.Lease, o job.Order) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.attempts[l]
	if x == nil || w.link.killed.Load() {
		return
	}
	h.noteLocked("%x orders %v of %s", w.id[:2], o, l.Job)
	if o == job.OrderLost {
		if h.healthyLocked(x) {
			h.violationLocked("the lease on %s was taken from a healthy worker", l.Job)
		}
		h.loseLocked(x)
		return
	}
	x.cancelled = true
}

// renew renews the leases of a worker, as a runner does, until its process ends.
func (h *history) renew(w *worker) {
	tick := time.NewTicker(historyRenew)
	defer tick.Stop()
	for {
		select {
		case <-w.ended:
			return
		case <-tick.C:
		}
		h.mu.Lock()
		var all []job.Lease
		for l, x := range h.attempts {
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
	if x := h.attempts[l]; x != nil && !w.link.killed.Load() {
		if h.healthyLocked(x) {
			h.violationLocked("the lease on %s was lost while its worker renewed it", l.Job)
		}
		h.loseLocked(x)
	}
}

func (h *history) filesRemoved(w *worker, ids []job.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		if w.link.killed.Load() {
			continue
		}
		h.files[id]++
		if x := h.jobs[id]; x != nil && !x.deleteRequested {
			h.violationLocked("the files of %s were removed without a delete", id)
		}
	}
}

// endProcess ends a process. It kills the process, or shuts it down, which releases its jobs.
func (h *history) endProcess(i int, kill bool) *worker {
	h.mu.Lock()
	w := h.processes[i]
	h.processes = append(h.processes[:i:i], h.processes[i+1:]...)
	h.mu.Unlock()
	h.note("%x ends, killed: %t", w.id[:2], kill)
	withdrawn := false
	if kill {
		w.link.killed.Store(true)
	} else {
		w.stopConsuming()
		for _, x := range h.attemptsOf(w) {
			h.end(x, w, job.Outcome{Released: true})
		}
		ctx, cancel := context.WithTimeout(h.ctx, time.Second)
		withdrawn = w.WithdrawLimits(ctx) == nil
		cancel()
		w.stop()
	}
	h.mu.Lock()
	h.endedProcesses++
	h.keepLimitsLocked(&w.limits, withdrawn)
	for _, x := range h.attempts {
		if x.w == w {
			h.loseLocked(x)
			h.voidLeases = h.voidLeases[:len(h.voidLeases)-1] // its lease stays valid until it lapses
		}
	}
	h.mu.Unlock()
	w.kill()
	return w
}

// keepLimitsLocked remembers the limits of a process that has ended: those that it has not withdrawn
// hold until its announcement is too old.
func (h *history) keepLimitsLocked(q *engine.Queue, withdrawn bool) {
	until := time.Now().Add(2 * pollBound)
	if !withdrawn {
		until = time.Now().Add(announcementLife + 2*pollBound)
	}
	h.formerLimits = append(h.formerLimits, formerLimits{q.MaxRunning, q.KeyRunning, until})
}

// limitsThatHoldLocked returns the smallest limits of the processes, and of those that have ended and
// still count.
func (h *history) limitsThatHoldLocked() (running, keyRunning int) {
	smaller := func(a, b int) int {
		if a == 0 || b == 0 {
			return max(a, b)
		}
		return min(a, b)
	}
	running, keyRunning = h.limits.MaxRunning, h.limits.KeyRunning
	for _, l := range h.formerLimits {
		if time.Now().Before(l.until) {
			running, keyRunning = smaller(running, l.running), smaller(keyRunning, l.keyRunning)
		}
	}
	return running, keyRunning
}

func (h *history) attemptsOf(w *worker) (list []*attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.attempts {
		if w == nil || x.w == w {
			list = append(list, x)
		}
	}
	return list
}

// end finishes an attempt through any process.
func (h *history) end(x *attempt, by *worker, o job.Outcome) {
	h.mu.Lock()
	if x.ending || h.attempts[x.claim.Lease()] != x {
		h.mu.Unlock()
		return
	}
	x.ending = true
	h.mu.Unlock()
	_, err := by.Finish(h.ctx, x.claim.Lease(), o)
	h.note("%x ends %s: %v", by.id[:2], x.claim.Job.ID, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case x.w.link.killed.Load():
	case err == nil || job.CodeOf(err) == job.LeaseLost:
		h.loseLocked(x)
	default: // the finish may be on disk
		x.ending, x.uncertain = false, true
	}
}

// entryText returns a text for one entry that no other job has.
func entryText(id job.ID, seq int64) string { return fmt.Sprintf("%s %d;", id, seq) }

// appendOutput appends the next entry of a job.
func (h *history) appendOutput(x *attempt) {
	h.mu.Lock()
	if x.ending || x.silent || h.attempts[x.claim.Lease()] != x {
		h.mu.Unlock()
		return
	}
	x.ending = true // one write at a time
	seq := x.seq + 1
	h.mu.Unlock()
	err := x.w.Append(h.ctx, x.claim.Lease(), []job.Entry{{Seq: seq, Attempt: x.claim.Job.Attempt, Kind: job.KindText, Events: 1, Data: []byte(entryText(x.claim.Job.ID, seq))}}, nil)
	h.mu.Lock()
	defer h.mu.Unlock()
	x.ending = false
	if err == nil {
		x.seq = seq
	}
}

// async makes a call in the background. pending waits for all such calls.
func (h *history) async(do func()) {
	h.pending.Go(do)
}

func (h *history) intn(n int) int { return h.rng.IntN(n) }

func (h *history) anyProcess() *worker {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.processes[h.intn(len(h.processes))]
}

func (h *history) anyJob() *knownJob {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.order) == 0 {
		return nil
	}
	n := min(len(h.order), 12) // most of the latest jobs have not ended
	if h.intn(4) == 0 {
		n = len(h.order)
	}
	return h.jobs[h.order[len(h.order)-1-h.intn(n)]]
}

func (h *history) submit(w *worker) {
	o := job.Owner{Tenant: []string{"", "a", "b"}[h.intn(3)], User: "u"}
	req := engine.Request{ID: job.NewID(), Owner: o, Queue: "sim", Key: []string{"", "k", "l"}[h.intn(3)], Priority: 4 + h.intn(3),
		Input: []byte([]string{"", "a", "b", "c"}[h.intn(4)])}
	if h.intn(4) == 0 {
		req.Delay = time.Duration(h.intn(5000)) * time.Millisecond
	}
	x := &knownJob{owner: o, id: req.ID}
	if x.files = h.intn(4) == 0; x.files {
		req.Files = []job.File{{Name: "f", Size: 1}}
	}
	h.async(func() {
		_, _, err := w.Submit(h.ctx, req)
		h.mu.Lock()
		defer h.mu.Unlock()
		if err == nil && !w.link.killed.Load() {
			h.jobs[x.id] = x
			h.order = append(h.order, x.id)
		}
	})
}

// step makes one random call through one of the processes. The engine may refuse it.
func (h *history) step() {
	w := h.anyProcess()
	switch h.intn(13) {
	case 0, 1, 2, 3:
		h.submit(w)
	case 4, 5, 6, 7:
		if all := h.attemptsOf(nil); len(all) > 0 {
			h.workOn(all[h.intn(len(all))])
		}
	case 8:
		h.changeRoom()
	case 9:
		paused := h.intn(2) == 0
		h.async(func() { _, _ = w.SetPaused(h.ctx, "sim", paused) })
	default:
		if x := h.anyJob(); x != nil {
			h.changeJob(w, x)
		}
	}
}

// workOn makes one random call of a worker for its job.
func (h *history) workOn(x *attempt) {
	outcome := []job.Outcome{{}, {}, {Fault: &job.Fault{Code: "x", Message: "x", Class: job.Retryable}}, {Released: true}}[h.intn(4)]
	switch h.intn(8) {
	case 0:
		h.mu.Lock()
		x.silent = true
		h.mu.Unlock()
	case 1, 2:
		h.async(func() { h.appendOutput(x) })
	default:
		by := x.w
		if h.intn(4) == 0 {
			by = h.anyProcess()
		}
		h.async(func() { h.end(x, by, outcome) })
	}
}

// changeJob deletes, retries or cancels a job, as its owner.
func (h *history) changeJob(w *worker, x *knownJob) {
	verb := h.intn(4)
	h.mu.Lock()
	switch verb {
	case 1:
		x.retryRequested = true
	default:
		x.endRequested, x.deleteRequested = true, x.deleteRequested || verb == 0
	}
	h.mu.Unlock()
	h.async(func() {
		switch verb {
		case 0:
			err := w.Delete(h.ctx, x.owner, x.id)
			h.mu.Lock()
			defer h.mu.Unlock()
			x.deleted = x.deleted || err == nil && !w.link.killed.Load()
		case 1:
			_, _ = w.Retry(h.ctx, x.owner, x.id)
		default:
			snap, err := w.Cancel(h.ctx, x.owner, x.id)
			h.mu.Lock()
			defer h.mu.Unlock()
			if err == nil && !w.link.killed.Load() && (!snap.State.Ended() || snap.State == job.Cancelled) {
				x.cancelled = true
			}
		}
	})
}

// failCommits makes the next commits of a process fail.
func (h *history) failCommits(w *worker) {
	step := []faulty.Step{faulty.BeforeCommit, faulty.LostBeforeCommit, faulty.LostAfterCommit, faulty.LostAfterCommit}[h.intn(4)]
	faults := make([]faulty.Fault, 1+h.intn(3))
	for i := range faults {
		faults[i].Step = step
	}
	h.failNextCommits(w, fmt.Sprint("step ", step), faults...)
}

// failNextCommits makes the next commits of a process fail, unless earlier faults are pending.
// If no commit of a process succeeds during a whole lease, it loses its jobs.
func (h *history) failNextCommits(w *worker, how string, faults ...faulty.Fault) {
	if w.store.Commits() < w.faultsUntil {
		return
	}
	w.faultsUntil = w.store.Commits() + len(faults)
	h.note("%x: %d commits break: %s", w.id[:2], len(faults), how)
	w.store.Next(faults...)
}

// changeLimits changes the configuration and restarts all processes.
func (h *history) changeLimits() {
	h.mu.Lock()
	h.limits.MaxRunning, h.limits.KeyRunning = []int{0, 1, 4, 6}[h.intn(4)], []int{0, 1, 2}[h.intn(3)]
	n := len(h.processes)
	h.mu.Unlock()
	for range n {
		h.endProcess(0, false)
		h.startProcess()
	}
}

// restartProcess ends a process and starts another. The new one may have the old one among its
// DeadProcesses.
func (h *history) restartProcess() (killed bool) {
	killed = h.intn(2) == 0
	h.mu.Lock()
	i := h.intn(len(h.processes))
	h.mu.Unlock()
	w := h.endProcess(i, killed)
	if killed && h.intn(2) == 0 {
		h.startProcess(w.id)
		return killed
	}
	h.startProcess()
	return killed
}

// endCancelled ends most of the jobs whose workers got a cancel order.
func (h *history) endCancelled() {
	for _, x := range h.attemptsOf(nil) {
		h.mu.Lock()
		stop := x.cancelled && !x.silent
		h.mu.Unlock()
		if stop && h.intn(3) > 0 {
			h.async(func() { h.end(x, x.w, job.Outcome{Cancelled: true}) })
		}
	}
}

// failOnViolations fails the test if there are violations.
func (h *history) failOnViolations() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.violations) > 0 {
		h.t.Fatalf("%d violations:\n%s\nbefore:\n%s", len(h.violations), strings.Join(h.violations, "\n"), strings.Join(h.notes, "\n"))
	}
}

// close ends all processes and calls.
func (h *history) close() {
	h.stop()
	for len(h.processes) > 0 {
		h.endProcess(0, true)
	}
	synctest.Wait()
}
