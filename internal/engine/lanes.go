package engine

import (
	"cmp"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// The bounds of a batch, and the minimum share of it that each lane may fill.
const (
	maxBatchOps   = 2000
	maxBatchBytes = 4 << 20
	laneShare     = 4 // a quarter
)

// minPipelinedOps is the number of waiting ops that justify a batch of their own while the batch
// before syncs.
const minPipelinedOps = 32

// The bounds of the ops that wait for the loop. Above them, submits and changes by clients are
// refused: clients may leave and ask again. The writes of workers need no bound, because each
// lease has one outstanding.
const (
	maxSubmitsWaiting = 8192
	maxChangesWaiting = 8192
	maxBytesWaiting   = 64 << 20
)

// Lane is the priority of an op: ops that free slots come before ops that bring new work.
type Lane uint8

// The lanes, the most urgent first.
const (
	laneUrgent Lane = iota // finishes, renewals, cancels and other changes
	laneOutput             // appends
	laneSubmit             // new work
	laneUpkeep             // retention
	NumLanes               // the number of lanes
)

// pendingOp is an op, or a group of submits, that waits for the loop or for the disk.
type pendingOp struct {
	lane    Lane
	bytes   int
	op      any             // a pointer to an op of package store, except Submit; nil with submits
	submits []*store.Submit // instead of op
	swept   bool            // a finish by which a sweep ends a lease
	fault   *job.Fault      // of a worker's finish; nil for none
	// onAnswer is called with the answer of a finish or a renewal; nil if the caller waits
	// for done.
	onAnswer func(error)

	queuedAt time.Time // when it entered its lane

	// Set by the loop before answer is called.
	err       error
	consumers []*consumer // for each submit: the consumer that gets the job, or nil
	done      chan bool   // receives one value with the answer; buffered; never closed; nil with onAnswer
}

// answer wakes the caller, or calls onAnswer: the op has its answer.
func (p *pendingOp) answer() {
	if p.onAnswer == nil {
		p.done <- true
		return
	}
	err := p.err
	switch op := p.op.(type) {
	case *store.Finish:
		err = cmp.Or(err, op.Err)
	case *store.Renew:
		err = cmp.Or(err, op.Err)
	}
	p.onAnswer(err)
}

// opCount returns the number of ops: 1, or the number of submits.
func (p *pendingOp) opCount() int { return max(len(p.submits), 1) }

// lanes hold the ops that wait for the loop.
type lanes struct {
	wake chan struct{} // has a value when the loop has something to do; never closed

	mu sync.Mutex
	// Guarded by mu.
	waiting        [NumLanes][]*pendingOp
	count          int             // waiting ops
	bytes          int             // bytes of the waiting ops
	submits        int             // waiting submits
	clientChanges  int             // waiting changes; see isClientChange
	unsynced       int             // applied batches that are not yet on disk
	inDoubtBatches []*pendingBatch // the batches in doubt; see indoubt.go
	closed         bool
}

func newLanes() *lanes { return &lanes{wake: make(chan struct{}, 1)} }

// put adds an op, or refuses it because too many wait.
func (l *lanes) put(p *pendingOp) error {
	p.queuedAt = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return job.Errorf(job.ShuttingDown, "the server is stopping")
	}
	if p.lane == laneSubmit {
		if l.submits >= maxSubmitsWaiting || l.bytes+p.bytes > maxBytesWaiting {
			return overloaded()
		}
		l.submits += p.opCount()
	}
	if p.isClientChange() {
		if l.clientChanges >= maxChangesWaiting {
			return overloaded()
		}
		l.clientChanges++
	}
	if p.onAnswer == nil {
		p.done = make(chan bool, 1)
	}
	l.waiting[p.lane] = append(l.waiting[p.lane], p)
	l.bytes += p.bytes
	first := l.count == 0
	l.count += p.opCount()
	// Further ops need no signal: the loop is about to take them, or waits for the disk.
	if first || l.count >= minPipelinedOps {
		l.signal()
	}
	return nil
}

func overloaded() error {
	return &job.Error{Code: job.Overloaded, Message: "the server has too much to write to its disk: try again in a moment", RetryAfter: retrySoon}
}

// waitForMore reports whether the loop should gather more ops first: the disk is busy with a
// batch, and too few ops wait to justify another one.
func (l *lanes) waitForMore() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsynced > 0 && l.count < minPipelinedOps
}

// oldest returns when the op that has waited longest was put; zero when none waits.
func (l *lanes) oldest() (at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ops := range l.waiting {
		if len(ops) > 0 && (at.IsZero() || ops[0].queuedAt.Before(at)) {
			at = ops[0].queuedAt
		}
	}
	return at
}

// idle reports whether no op waits and every applied batch is on disk.
func (l *lanes) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsynced == 0 && l.count == 0
}

// addUnsynced counts a batch that was applied and not synced.
func (l *lanes) addUnsynced() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsynced++
}

// removeUnsynced removes a synced batch from the count.
func (l *lanes) removeUnsynced() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsynced--
	l.signal()
}

// signal wakes the loop.
func (l *lanes) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take removes and returns the ops of the next batch: first a share from every lane, then more
// ops from the urgent lanes to the others.
func (l *lanes) take() (ops []*pendingOp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	filler := batchFiller{opsLeft: maxBatchOps, bytesLeft: maxBatchBytes}
	var from [NumLanes]int
	for round := range 2 {
		for i := range l.waiting {
			limit := filler.opsLeft
			if round == 0 { // the guaranteed shares, so that no lane starves
				limit = maxBatchOps / laneShare
			}
			from[i] += filler.takeFrom(l.waiting[i][from[i]:], limit)
		}
	}
	for i, n := range from {
		rest := copy(l.waiting[i], l.waiting[i][n:])
		clear(l.waiting[i][rest:]) // so that the garbage collector can free the ops
		l.waiting[i] = l.waiting[i][:rest]
	}
	for _, p := range filler.ops {
		l.subtractLocked(p)
	}
	return filler.ops
}

// subtractLocked subtracts an op that left its lane from the counts.
func (l *lanes) subtractLocked(p *pendingOp) {
	l.bytes -= p.bytes
	l.count -= p.opCount()
	if p.lane == laneSubmit {
		l.submits -= p.opCount()
	}
	if p.isClientChange() {
		l.clientChanges--
	}
}

// isClientChange reports whether a client asked for the change. Cancels by the sweep do not
// count, because it makes only one at a time.
func (p *pendingOp) isClientChange() bool {
	switch op := p.op.(type) {
	case *store.Cancel:
		return !op.IfAbandoned
	case *store.Delete, *store.Retry, *store.Write, *store.Pause:
		return true
	}
	return false
}

// batchFiller fills a batch with ops.
type batchFiller struct {
	ops                []*pendingOp
	opsLeft, bytesLeft int // remaining capacity
}

// takeFrom takes ops from the front of a lane, up to the limit, and returns their number. The
// first op of a share may exceed the limit, because it may be several submits. The first op of a
// batch may have any size.
func (filler *batchFiller) takeFrom(waiting []*pendingOp, limit int) int {
	for n, p := range waiting {
		rows := p.opCount()
		if n > 0 && rows > limit || limit <= 0 || filler.opsLeft <= 0 || filler.bytesLeft < p.bytes && len(filler.ops) > 0 {
			return n
		}
		filler.ops = append(filler.ops, p)
		limit -= rows
		filler.opsLeft -= rows
		filler.bytesLeft -= p.bytes
	}
	return len(waiting)
}

// close makes put refuse all further ops.
func (l *lanes) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.signal()
}
