package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// groupSize returns how many of the first ops belong to one group.
func groupSize(ops []*store.Submit) (n int) {
	for n < len(ops) && ops[n].Group == ops[0].Group {
		n++
	}
	return n
}

// checkGroup checks a group before any of it is written, and refuses all of it if one op must
// be refused.
func (a *applier) checkGroup(ops []*store.Submit) error {
	g := groupCheck{applier: a, keys: map[OwnedKey][32]byte{}}
	refused := len(ops) != ops[0].Group.Size
	for _, op := range ops {
		op.Err, op.Existing, op.Conflict = nil, nil, nil
		a.m.namedQueue(op.Job.Queue)
		if err := g.check(op); err != nil {
			return err
		}
		refused = refused || op.Err != nil
	}
	for _, op := range ops {
		// A repeated key is answered when the op applies, not by the check.
		if op.Existing = nil; refused && op.Err == nil {
			op.Err = store.GroupRefused()
		}
	}
	return nil
}

// submitChecked applies a submit of a checked group.
func (a *applier) submitChecked(op *store.Submit) error {
	if op.Err != nil {
		return nil
	}
	if known, err := a.answerRepeatedSubmit(op); known || err != nil {
		return err
	}
	return a.create(op)
}

// groupCheck collects the keys and limits of a group while its ops are checked.
type groupCheck struct {
	*applier
	keys   map[OwnedKey][32]byte // hashes by idempotency key
	limits fairqueue.Group
	kept   int64 // bytes that the group's jobs before this one keep; a group has one owner
}

// check checks one op, and sets its error if it may not apply.
func (g *groupCheck) check(op *store.Submit) (err error) {
	known, err := g.answerRepeatedSubmit(op)
	if known || err != nil {
		return err
	}
	if k := op.Idempotency; k != nil {
		if first, again := g.keys[OwnedKey{op.Job.Owner, k.Key}]; again {
			if first != k.Hash {
				op.Err = store.KeyReused()
			}
			return nil
		}
	}
	arriving := arrival(op)
	if op.Err = g.limits.Admit(g.m.queue(op.Job.Queue).Queue, &arriving); op.Err == nil {
		op.Conflict, op.Err, err = g.checkRows(op.Rows)
	}
	if op.Err == nil && err == nil {
		g.kept += keptBytes(op)
		op.Err, err = g.checkKept(op.Job.Owner, g.kept)
	}
	if k := op.Idempotency; k != nil && op.Err == nil {
		g.keys[OwnedKey{op.Job.Owner, k.Key}] = k.Hash
	}
	return err
}
