package sqlite

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// added is what the submits before one in its group add to what limits look at.
type added struct {
	running    int // in the queue
	keyBusy    int // of the key: queued or running
	keyWaiting int
}

// firstState is where a new job begins: running only where nothing forbids it.
func (t *tx) firstState(op *store.Submit, a added) job.State {
	if op.Delay > 0 {
		return job.Scheduled
	}
	q := t.queue(op.Job.Queue)
	if most := q.held(op.Job.Key).KeyRunning; most > 0 && q.key(op.Job.Key).busy()+a.keyBusy >= most {
		return job.Parked
	}
	if op.Token.IsZero() {
		return job.Queued
	}
	if most := q.limits.Running; q.counts.Paused || most > 0 && int(q.counts.Running)+a.running >= most {
		return job.Queued
	}
	return job.Running
}

// keyFull refuses a job that would wait beyond its key's limit.
func (t *tx) keyFull(op *store.Submit, a added) error {
	j, q := &op.Job, t.queue(op.Job.Queue)
	most := q.held(j.Key).KeyWaiting
	if most == 0 || !t.firstState(op, a).Waiting() {
		return nil
	}
	if n := q.key(j.Key).waiting() + a.keyWaiting; n >= most {
		return job.Errorf(job.KeyFull, "the key %s has %d jobs waiting in the queue %s, of %d that it may have: try again when some have run", job.Quote(j.Key), n, j.Queue, most)
	}
	return nil
}

// grouped is how many of the ops at the front are of one group.
func grouped(ops []*store.Submit) (n int) {
	for n < len(ops) && ops[n].Group == ops[0].Group {
		n++
	}
	return n
}

// checkGroup finds out whether a group may apply, and refuses all of it where it
// may not.
func (t *tx) checkGroup(ops []*store.Submit) error {
	g := group{tx: t, keys: map[ownedKey][32]byte{}, running: map[string]int{}, added: map[queueKey]*added{}}
	refused := len(ops) != ops[0].Group.Size
	for _, op := range ops {
		op.Err, op.Existing, op.Conflict = nil, nil, nil
		if err := g.check(op); err != nil {
			return err
		}
		refused = refused || op.Err != nil
	}
	for _, op := range ops {
		if op.Existing = nil; refused && op.Err == nil {
			op.Err = job.Errorf(job.BatchRefused, "another job of the batch was refused, so that none of it was stored")
		}
	}
	return nil
}

// submitChecked applies a submit of a group that was checked.
func (t *tx) submitChecked(op *store.Submit) error {
	if op.Err != nil {
		return nil
	}
	if known, err := t.knownKey(op); known || err != nil {
		return err
	}
	return t.create(op)
}

// group is what the check of a group has seen.
type group struct {
	*tx
	keys    map[ownedKey][32]byte // idempotency keys, and the hashes they came with
	running map[string]int        // by queue
	added   map[queueKey]*added   // running aside
}

type (
	ownedKey struct {
		owner job.Owner
		key   string
	}
	queueKey struct{ queue, key string }
)

// check says in the op why it may not apply.
func (g *group) check(op *store.Submit) (err error) {
	known, err := g.knownKey(op)
	if known || err != nil {
		return err
	}
	if k := op.Idempotency; k != nil {
		if first, again := g.keys[ownedKey{op.Job.Owner, k.Key}]; again {
			if first != k.Hash {
				op.Err = otherRequest()
			}
			return nil
		}
	}
	if op.Err = g.limits(op); op.Err == nil {
		op.Conflict, op.Err, err = g.checkRows(op.Rows)
	}
	if k := op.Idempotency; k != nil && op.Err == nil {
		g.keys[ownedKey{op.Job.Owner, k.Key}] = k.Hash
	}
	return err
}

// limits holds an op to the limits, as if those before it had been stored.
func (g *group) limits(op *store.Submit) error {
	q := op.Job.Queue
	a := g.added[queueKey{q, op.Job.Key}]
	if a == nil {
		a = &added{}
		g.added[queueKey{q, op.Job.Key}] = a
	}
	a.running = g.running[q]
	if err := g.keyFull(op, *a); err != nil {
		return err
	}
	state := g.firstState(op, *a)
	if state == job.Running {
		g.running[q]++
	}
	if busy(state) {
		a.keyBusy++
	}
	if state.Waiting() {
		a.keyWaiting++
	}
	return nil
}
