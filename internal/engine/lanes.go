package engine

import (
	"cmp"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// A batch holds up to about so much, and each lane may have at least its share of it.
const (
	batchRows  = 2000
	batchBytes = 4 << 20
	laneShare  = 4 // a quarter
)

// enough ops are worth a batch of their own while the one before is being synced.
const minPipelinedOps = 32

// The bounds of what waits for the loop. Submits are refused, and the changes that clients
// ask for, who may leave and come again. What a worker writes is bounded by its leases, each
// of which has one write outstanding.
const (
	maxSubmitsWaiting = 8192
	maxChangesWaiting = 8192
	maxBytesWaiting   = 64 << 20
)

// Lane orders ops by how much others depend on them.
type Lane uint8

// The lanes.
const (
	laneUrgent Lane = iota // renewals, finishes, cancels: they free what others wait for
	laneOutput             // appends
	laneSubmit             // new work
	laneUpkeep             // retention
	NumLanes               // how many there are
)

// pending is an op on its way through the loop, or several submits that go together.
type pendingOp struct {
	lane    Lane
	bytes   int
	op      any             // one of the op types of package store, but for Submit
	submits []*store.Submit // instead of op
	// taken says of a finish that a sweep takes the lease from its worker, who is told.
	swept    bool
	onAnswer func(error) // of a finish or a renewal: told of the answer, where nobody waits for done

	queuedAt time.Time // when it was put into its lane

	// Set by the loop before the answer.
	err       error
	consumers []*consumer // of each submit: whom it is to be delivered to, or nil
	done      chan bool   // has room for the one value that the loop sends; nil with then
}

// answer tells whoever asked that there is an answer.
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

// rows is how many ops it is.
func (p *pendingOp) opCount() int { return max(len(p.submits), 1) }

// lanes are what waits for the loop.
type lanes struct {
	wake chan struct{} // has a value when something waits; nobody closes it

	mu sync.Mutex
	// Guarded by mu.
	waiting        [NumLanes][]*pendingOp
	count          int             // of what waits
	bytes          int             // of what waits
	submits        int             // of what waits, in its lane
	clientChanges  int             // of what waits; see pending.changes
	unsynced       int             // batches that are applied and not yet on disk
	inDoubtBatches []*pendingBatch // those of them that are in doubt
	closed         bool
}

func newLanes() *lanes { return &lanes{wake: make(chan struct{}, 1)} }

// put adds an op, or says why there is no room for it.
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
	if first || l.count >= minPipelinedOps {
		l.signal()
	}
	return nil
}

func overloaded() error {
	return &job.Error{Code: job.Overloaded, Message: "the server has as much to write to disk as it may hold: try again in a moment", RetryAfter: retrySoon}
}

// syncing says that the disk is busy with a batch and too little waits for another
// one to be worth its own cost: what comes meanwhile shares the next.
func (l *lanes) waitForMore() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsynced > 0 && l.count < minPipelinedOps
}

// idle says that nothing waits and nothing is on its way to the disk.
func (l *lanes) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsynced == 0 && l.count == 0
}

// applied and synced count the batches on their way to the disk.
func (l *lanes) addUnsynced() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsynced++
}

func (l *lanes) removeUnsynced() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsynced--
	l.signal()
}

func (l *lanes) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take removes and returns the ops of the next batch: first a share of every
// lane, then what room is left, the urgent lanes first.
func (l *lanes) take() (ops []*pendingOp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := batchFiller{rows: batchRows, bytes: batchBytes}
	var from [NumLanes]int
	for share := range 2 {
		for i := range l.waiting {
			most := t.rows
			if share == 0 {
				most = batchRows / laneShare
			}
			from[i] += t.takeFrom(l.waiting[i][from[i]:], most)
		}
	}
	for i, n := range from {
		rest := copy(l.waiting[i], l.waiting[i][n:])
		clear(l.waiting[i][rest:])
		l.waiting[i] = l.waiting[i][:rest]
	}
	for _, p := range t.ops {
		l.uncountLocked(p)
	}
	return t.ops
}

// tookLocked counts an op out that waits no longer.
func (l *lanes) uncountLocked(p *pendingOp) {
	l.bytes -= p.bytes
	l.count -= p.opCount()
	if p.lane == laneSubmit {
		l.submits -= p.opCount()
	}
	if p.isClientChange() {
		l.clientChanges--
	}
}

// changes says whether an op is a change that a client asked for. The sweep's cancels are
// made one after another.
func (p *pendingOp) isClientChange() bool {
	switch op := p.op.(type) {
	case *store.Cancel:
		return !op.IfAbandoned
	case *store.Delete, *store.Retry, *store.Write, *store.Pause:
		return true
	}
	return false
}

// taker fills a batch.
type batchFiller struct {
	ops         []*pendingOp
	rows, bytes int // the room that is left
}

// from takes ops of up to so many rows from the front of a lane and says how many
// ops. The first op of a lane's share is taken however many rows it is, and the
// first op of a batch whatever its size.
func (t *batchFiller) takeFrom(waiting []*pendingOp, most int) int {
	for n, p := range waiting {
		rows := p.opCount()
		if n > 0 && rows > most || most <= 0 || t.rows <= 0 || t.bytes < p.bytes && len(t.ops) > 0 {
			return n
		}
		t.ops = append(t.ops, p)
		most -= rows
		t.rows -= rows
		t.bytes -= p.bytes
	}
	return len(waiting)
}

// close refuses what comes from now on.
func (l *lanes) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.signal()
}
