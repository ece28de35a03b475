package postgres

import (
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// known are the unfinished jobs of which this process has written the last change, as far as it
// knows: what a direct batch finds here it does not read; see direct.go. It is a copy. Rows of
// running jobs may have changed, and guards find that. Rows of waiting jobs may have been changed
// by moves of other processes only.
type known struct {
	running map[job.ID]*entry
	tokens  map[job.Token]bool // of running
	waiting map[string]*knownQueue
	count   int // of waiting jobs
	bytes   int // of their inputs
}

// The bounds of what is known. Jobs above them are read when they are needed.
const (
	maxKnownRunning = 10_000
	maxKnownWaiting = 10_000
	maxKnownBytes   = 32 << 20 // of inputs
)

func newKnown() *known {
	return &known{running: map[job.ID]*entry{}, tokens: map[job.Token]bool{}, waiting: map[string]*knownQueue{}}
}

// knownQueue has waiting jobs of a queue.
type knownQueue struct {
	byN   map[int64]*entry
	lanes map[string]*knownLane
}

// knownLane has the waiting jobs of a lane by turn and number.
type knownLane struct {
	sorted []*entry // from first on
	first  int
}

// keep notes what a stored batch made of its jobs.
func (k *known) keep(t *tx) {
	for _, e := range t.byN {
		j := e.job
		k.forget(j.ID, j.Queue, j.N)
		if e.place != unfinished || j.Deleted || j.Damaged || j.Tally != "" || len(j.Refs) > 0 || j.Policy.Timeouts.Abandon > 0 {
			continue
		}
		switch {
		case j.State == job.Running && j.CancelRequestedAt.IsZero() && len(k.running) < maxKnownRunning:
			k.running[j.ID] = e.copy()
			k.tokens[j.Lease.Token] = true
		case j.State == job.Queued && e.queued && e.hasInput && e.inputErr == nil && k.count < maxKnownWaiting && k.bytes+len(e.input) <= maxKnownBytes:
			k.addWaiting(e.copy())
		}
	}
	if k.count > 0 && t.s.waiting() > maxKnownWaiting {
		k.forgetWaiting() // they cannot all be known
	}
}

// copy returns the entry of a stored job for another batch.
func (e *entry) copy() *entry {
	j := *e.job
	c := &entry{job: &j, stored: unfinished, place: unfinished, bytes: e.bytes, queueBy: e.queueBy}
	if e.queued {
		c.queued, c.lane, c.input, c.hasInput = true, e.lane, e.input, true
	}
	return c
}

// forget drops a job.
func (k *known) forget(id job.ID, queue string, n int64) {
	if e := k.running[id]; e != nil {
		delete(k.running, id)
		delete(k.tokens, e.job.Lease.Token)
	}
	q := k.waiting[queue]
	if q == nil || q.byN[n] == nil {
		return
	}
	e := q.byN[n]
	delete(q.byN, n)
	k.count--
	k.bytes -= len(e.input)
	l := q.lanes[e.lane]
	switch at := l.find(e.job.Turn, n); {
	case at > l.first:
		l.sorted = slices.Delete(l.sorted, at, at+1)
	default: // the usual case: the first job was claimed
		l.sorted[at] = nil
		if l.first++; l.first > len(l.sorted)/2 {
			l.sorted, l.first = slices.Delete(l.sorted, 0, l.first), 0
		}
	}
	if len(l.sorted) == 0 {
		delete(q.lanes, e.lane)
	}
}

func (k *known) addWaiting(e *entry) {
	q := k.waiting[e.job.Queue]
	if q == nil {
		q = &knownQueue{byN: map[int64]*entry{}, lanes: map[string]*knownLane{}}
		k.waiting[e.job.Queue] = q
	}
	l := q.lanes[e.lane]
	if l == nil {
		l = &knownLane{}
		q.lanes[e.lane] = l
	}
	q.byN[e.job.N] = e
	at := l.find(e.job.Turn, e.job.N)
	l.sorted = slices.Insert(l.sorted, at, e)
	k.count++
	k.bytes += len(e.input)
}

// find returns the index of the first job that is not before a turn and a number.
func (l *knownLane) find(turn, n int64) int {
	at, _ := slices.BinarySearchFunc(l.sorted[l.first:], n, func(e *entry, n int64) int {
		if e.before(turn, n) {
			return -1
		}
		return 0
	})
	return l.first + at
}

// canEnd reports whether a finish ends a job that is known. A finish that would be refused is not
// answered from memory: guards find only what has changed of jobs that are written.
func (k *known) canEnd(op *store.Finish) bool {
	e := k.running[op.Lease.Job]
	return e != nil && e.job.Lease.Token == op.Lease.Token && op.To.Ended() && op.OnlyIf == 0 && !op.Lost &&
		(len(op.Entries) == 0 || op.Entries[0].Seq == e.job.Cursor+1)
}

// hasLeases reports whether all leases of a batch are known and its ops will apply.
func (k *known) hasLeases(b *store.Batch) bool {
	for _, op := range b.Renews {
		if e := k.running[op.Lease.Job]; e == nil || e.job.Lease.Token != op.Lease.Token {
			return false
		}
	}
	for _, op := range b.Appends {
		e := k.running[op.Lease.Job]
		if e == nil || e.job.Lease.Token != op.Lease.Token || len(op.Entries) == 0 || op.Entries[0].Seq != e.job.Cursor+1 {
			return false
		}
	}
	for _, op := range b.Finishes {
		if !k.canEnd(op) {
			return false
		}
	}
	return true
}

// forgetWaiting drops all waiting jobs: another process has moved some.
func (k *known) forgetWaiting() {
	if k.count > 0 {
		k.waiting, k.count, k.bytes = map[string]*knownQueue{}, 0, 0
	}
}

// complete reports whether all n queued jobs of a queue are known.
func (k *known) complete(queue string, n int64) bool {
	q := k.waiting[queue]
	return q == nil && n == 0 || q != nil && int64(len(q.byN)) == n
}

// after returns up to limit jobs of a lane after a turn and a number.
func (k *known) after(queue, lane string, turn, n int64, limit int) []*entry {
	q := k.waiting[queue]
	if q == nil || q.lanes[lane] == nil {
		return nil
	}
	l := q.lanes[lane]
	at := l.find(turn, n)
	if at < len(l.sorted) && l.sorted[at].job.Turn == turn && l.sorted[at].job.N == n {
		at++
	}
	return l.sorted[at:min(at+limit, len(l.sorted))]
}

// hasToken reports whether the batch repeats a token of a running job.
func (k *known) hasToken(b *store.Batch) bool {
	for _, op := range b.Submits {
		if k.tokens[op.Token] {
			return true
		}
	}
	for _, op := range b.Claims {
		for _, token := range op.Tokens {
			if k.tokens[token] {
				return true
			}
		}
	}
	return false
}
