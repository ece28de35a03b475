package sqlite

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

// pruneChunk is the number of jobs between two checks of the prune's limits.
const pruneChunk = 32

// pruneRun is a prune being applied.
type pruneRun struct {
	*tx
	op         *store.Prune
	began      time.Time
	lastRow    int64 // the row read last
	limitLeft  int   // jobs that it may still read
	freedBytes int64 // bytes of the jobs that it deleted
}

func (t *tx) prune(op *store.Prune) (err error) {
	op.Err, op.Deleted, op.Next, op.ReadUntil, op.More = nil, 0, "", time.Time{}, false
	p := &pruneRun{tx: t, op: op, began: time.Now(), limitLeft: op.Limit}
	if p.lastRow, op.Err = parseRowCursor(op.After); op.Err != nil {
		return nil
	}
	for more := true; more && err == nil; {
		more, err = p.chunk()
	}
	if err == nil {
		err = p.dropLeftovers()
	}
	return err
}

// done reports whether the prune has reached a limit.
func (p *pruneRun) done() bool {
	return p.limitLeft <= 0 || p.op.MaxBytes > 0 && p.freedBytes >= p.op.MaxBytes || p.outOfTime()
}

func (p *pruneRun) outOfTime() bool { return p.op.MaxTime > 0 && time.Since(p.began) >= p.op.MaxTime }

// pruneCandidate is an ended job that may be pruned.
type pruneCandidate struct {
	removal
	outputBytes int64 // bytes
	inputBytes  int64 // with the bytes of its files
}

// chunk reads the next jobs and deletes those past their time. It reports whether to go on.
func (p *pruneRun) chunk() (more bool, err error) {
	list, n, err := p.readNext(min(pruneChunk, p.limitLeft))
	if err != nil {
		return false, err
	}
	for i := range list {
		if p.op.MaxBytes > 0 && p.freedBytes >= p.op.MaxBytes {
			// The next prune begins with this job.
			p.op.Next = rowCursor(list[i].n - 1)
			return false, nil
		}
		if err := p.removeCandidate(&list[i]); err != nil {
			return false, err
		}
	}
	// There are no more jobs: the cursor ends.
	if n < min(pruneChunk, p.limitLeft) {
		p.op.Next = ""
		return false, nil
	}
	p.op.Next = rowCursor(p.lastRow)
	p.limitLeft -= n
	return !p.done(), nil
}

// readNext reads jobs after lastRow, and advances it.
func (p *pruneRun) readNext(limit int) (list []pruneCandidate, n int, err error) {
	err = p.q.pruneCandidates.int(p.lastRow).int(int64(limit)).each(func(c column) error {
		n++
		p.lastRow, p.op.ReadUntil = c.int(0), c.time(6)
		if job.State(c.int(3)).Ended() && (p.op.Early || !c.time(4).After(p.now)) {
			list = append(list, pruneCandidate{scanRemoval(c), c.int(7), c.int(10)})
		}
		return nil
	})
	return list, n, err
}

func (p *pruneRun) removeCandidate(o *pruneCandidate) error {
	if p.op.MaxBytes > 0 {
		p.freedBytes += o.outputBytes
		// Bytes of files count towards the space that an early prune must free, but not towards the
		// work of a commit.
		if p.op.Early && o.files > 0 {
			p.freedBytes += o.inputBytes
		}
		_, err := p.q.bodyBytes.int(o.n).first(func(c column) error { p.freedBytes += c.int(0); return nil })
		if err != nil {
			return err
		}
	}
	p.op.Deleted++
	return p.remove(o.removal)
}

func scanRemoval(c column) removal {
	tally, _ := codec.DecodeGroups(c.bytes(11))
	return removal{
		n: c.int(0), id: c.id(8), files: int(c.int(9)),
		owner: job.Owner{Tenant: c.text(1), User: c.text(2)}, idempotencyKey: c.text(5), tally: tally,
	}
}

// leftover is an idempotency key whose job was removed.
type leftover struct {
	row   int64
	owner job.Owner
	key   string
}

// dropLeftovers deletes expired idempotency keys and old records of deletes, and sets More if
// some may be left.
func (p *pruneRun) dropLeftovers() error {
	for left := p.op.Limit; left > 0; left -= pruneChunk {
		limit := min(pruneChunk, left)
		keys, err := p.dropLeftoverKeys(limit)
		if err != nil {
			return err
		}
		deletes, err := p.dropDeleteRecords(limit)
		if err != nil {
			return err
		}
		p.op.More = keys == limit || deletes == limit
		if !p.op.More || p.outOfTime() {
			return nil
		}
	}
	return nil
}

func (p *pruneRun) dropLeftoverKeys(limit int) (int, error) {
	var keys []leftover
	err := p.q.oldLeftovers.time(p.now).int(int64(limit)).each(func(c column) error {
		keys = append(keys, leftover{c.int(0), job.Owner{Tenant: c.text(1), User: c.text(2)}, c.text(3)})
		return nil
	})
	for i := range keys {
		if err == nil {
			err = p.dropExpiredKey(keys[i].owner, keys[i].key)
		}
		if err == nil {
			p.keep(keys[i].owner, -leftoverBytes)
			err = p.q.deleteLeftover.int(keys[i].row).run()
		}
	}
	return len(keys), err
}

func (p *pruneRun) dropDeleteRecords(limit int) (int, error) {
	var ids []job.ID
	err := p.q.oldDeleted.time(p.now).int(int64(limit)).each(func(c column) error {
		ids = append(ids, c.id(0))
		p.keep(job.Owner{Tenant: c.text(1), User: c.text(2)}, -deleteBytes)
		return nil
	})
	for i := range ids {
		if err == nil {
			err = p.q.deleteDeleted.id(&ids[i]).run()
		}
	}
	return len(ids), err
}

// dropExpiredKey deletes an idempotency key whose time has passed. A key that was used again
// stays: it has a new time, or its job exists.
func (t *tx) dropExpiredKey(o job.Owner, key string) error {
	var id job.ID
	var until time.Time
	known, err := t.q.idempotent.text(o.Tenant).text(o.User).text(key).first(func(c column) error {
		id, until = c.id(0), c.time(2)
		return nil
	})
	if err != nil || !known || until.After(t.now) {
		return err
	}
	// The key was used again and now belongs to the new job.
	if f, err := t.find(o, id); f != nil || err != nil {
		return err
	}
	return t.q.deleteIdempotent.text(o.Tenant).text(o.User).text(key).run()
}
