package ops

import (
	"maps"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// applier applies one batch.
type applier struct {
	tx    Tx
	m     *Memory
	b     *store.Batch
	atEnd store.AtEnd
	now   time.Time

	room    fairqueue.Room         // for further claims
	freed   []freedKey             // keys in which the current op freed a place
	tallies map[Tally]*TallyChange // changes to tallies
	kept    map[job.Owner]int64    // changes of the bytes that owners keep
}

// Apply applies the ops of a batch, and sets the fields of the batch and its ops that belong to the
// store. A refusal stays with its op. After an error nothing of the batch may be stored, and the
// memory must be loaded again. atEnd may be nil.
func Apply(tx Tx, m *Memory, b *store.Batch, atEnd store.AtEnd) error {
	b.Moved, b.Removed, b.FollowUps, b.Damaged = nil, nil, nil, nil
	m.begin(b)
	a := &applier{tx: tx, m: m, b: b, atEnd: atEnd, now: tx.Now(), room: maps.Clone(b.Room)}
	// Kind by kind, in the order of the batch's fields.
	for _, kind := range [...]func() error{
		a.endDamaged,
		func() error { return applyEach(a, b.Pauses, a.pause) },
		func() error { return applyEach(a, b.Renews, a.renew) },
		func() error { return applyEach(a, b.Presences, a.renewPresence) },
		func() error { return applyEach(a, b.Appends, a.append) },
		func() error { return applyEach(a, b.Finishes, a.finish) },
		func() error { return applyEach(a, b.Cancels, a.cancel) },
		func() error { return applyEach(a, b.Deletes, a.delete) },
		func() error { return applyEach(a, b.Retries, a.retry) },
		func() error { return applyEach(a, b.Writes, a.write) },
		func() error { return a.submits(b.Submits) },
		func() error { return applyEach(a, b.Dues, a.due) },
		func() error { return applyEach(a, b.Prunes, a.prune) },
		// A suspect that may run now can be claimed by the same batch.
		a.queueSuspect,
		func() error { return applyEach(a, b.Claims, a.claim) },
		// The sums change once for all ops of the batch.
		a.saveTallies,
		a.saveKept,
	} {
		if err := kind(); err != nil {
			return err
		}
	}
	b.Counts = make(map[string]job.Counts, len(m.named))
	for _, name := range m.named {
		b.Counts[name] = m.queues[name].Counts
	}
	return nil
}

// applyEach applies f to every op, and after each op queues parked jobs in the places that it
// freed. A refusal stays with its op; any other error ends the batch.
func applyEach[Op any](a *applier, ops []*Op, f func(*Op) error) error {
	for _, op := range ops {
		if err := f(op); err != nil {
			return err
		}
		if _, err := a.unparkFreedKeys(); err != nil {
			return err
		}
	}
	return nil
}

// move counts a job that moved from one state to its current one. Every change of a job's state
// must call it and must be legal. It returns the turn of a job that is now queued or parked. A new
// job comes from state 0. suspect is whether the job was a suspect before.
func (a *applier) move(j *job.Job, from job.State, suspect bool) (turn int64) {
	mustBeLegal(j, from)
	return a.moveUnchecked(j, from, suspect)
}

// moveUnchecked is move without the check: a damaged job fails from any state.
func (a *applier) moveUnchecked(j *job.Job, from job.State, suspect bool) (turn int64) {
	turn, freed := a.m.move(j, from, suspect)
	if j.Tally != "" {
		c := a.tallyChange(tallyOf(j))
		c.Move(from, j.State, j.InputBytes)
		if retried(from, j.State) {
			c.Retried++
		}
	}
	if freed {
		a.freed = append(a.freed, freedKey{j.Queue, fairqueue.KeyOf(j)})
	}
	return turn
}

// retried reports whether a move is that of a retry.
func retried(from, to job.State) bool { return from.Ended() && to.Waiting() }

func (a *applier) pause(op *store.Pause) error {
	op.Err = nil
	a.m.pause(op.Queue, op.Paused)
	return nil
}

func (a *applier) renewPresence(op *store.Presence) error {
	op.Err = nil
	for _, id := range op.Jobs {
		if err := a.tx.RenewJob(id); err != nil {
			return err
		}
	}
	for _, o := range op.Owners {
		if err := a.tx.RenewOwner(o); err != nil {
			return err
		}
	}
	return nil
}
