package ops

import (
	"strconv"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// pruneChunk is the number of jobs between two checks of the prune's limits.
const pruneChunk = 32

// pruneRun is a prune being applied.
type pruneRun struct {
	*applier
	op         *store.Prune
	began      time.Time
	last       int64 // number of the job read last
	limitLeft  int   // jobs that it may still read
	freedBytes int64 // bytes of the jobs that it deleted
}

func (a *applier) prune(op *store.Prune) (err error) {
	op.Err, op.Deleted, op.Next, op.ReadUntil, op.More = nil, 0, "", time.Time{}, false
	p := &pruneRun{applier: a, op: op, began: time.Now(), limitLeft: op.Limit}
	if p.last, op.Err = ParseCursor(op.After); op.Err != nil {
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
func (p *pruneRun) done() bool { return p.limitLeft <= 0 || p.outOfBytes() || p.outOfTime() }

func (p *pruneRun) outOfBytes() bool { return p.op.MaxBytes > 0 && p.freedBytes >= p.op.MaxBytes }

func (p *pruneRun) outOfTime() bool { return p.op.MaxTime > 0 && time.Since(p.began) >= p.op.MaxTime }

// chunk reads the next jobs and deletes those past their time. It reports whether to go on.
func (p *pruneRun) chunk() (more bool, err error) {
	limit := min(pruneChunk, p.limitLeft)
	jobs, err := p.tx.Prunable(p.last, limit)
	if err != nil {
		return false, err
	}
	for _, j := range jobs {
		p.last, p.op.ReadUntil = j.N, j.CreatedAt
	}
	for _, j := range jobs {
		if !j.State.Ended() || !p.op.Early && j.ExpiresAt.After(p.now) {
			continue
		}
		if awaited, err := p.awaitsFollowUp(j); awaited || err != nil {
			if err != nil {
				return false, err
			}
			continue
		}
		if p.outOfBytes() {
			// The next prune begins with this job.
			p.op.Next = FormatCursor(j.N - 1)
			return false, nil
		}
		if err := p.removeJob(j); err != nil {
			return false, err
		}
	}
	// There are no more jobs: the cursor ends.
	if len(jobs) < limit {
		p.op.Next = ""
		return false, nil
	}
	p.op.Next = FormatCursor(p.last)
	p.limitLeft -= len(jobs)
	return !p.done(), nil
}

// awaitsFollowUp reports whether a job that the last end of this one made has not ended. The ids
// of such jobs depend neither on output nor on results; see [store.AtEnd].
func (p *pruneRun) awaitsFollowUp(j *Job) (bool, error) {
	if !j.HasRefs || p.atEnd == nil {
		return false, nil
	}
	full, err := p.find(j.Owner, j.ID)
	if err != nil || full == nil || full.Damaged {
		return false, err
	}
	end := store.End{Job: full.Job, Text: func(int) string { return "" }, Entries: func(int) []job.Entry { return nil }}
	for _, op := range p.atEnd(end).Jobs {
		made, err := p.find(op.Job.Owner, op.Job.ID)
		if err != nil {
			return false, err
		}
		if made != nil && !made.State.Ended() {
			return true, nil
		}
	}
	return false, nil
}

func (p *pruneRun) removeJob(j *Job) error {
	if p.op.MaxBytes > 0 {
		bodies, err := p.tx.BodyBytes(j)
		if err != nil {
			return err
		}
		p.freedBytes += j.OutputBytes + bodies
		// Bytes of files count towards the space that an early prune must free, but not towards the
		// work of a commit.
		if p.op.Early && j.FileCount > 0 {
			p.freedBytes += j.InputBytes
		}
	}
	p.op.Deleted++
	return p.remove(j)
}

// dropLeftovers deletes expired idempotency keys and old records of deletes, and sets More if
// some may be left.
func (p *pruneRun) dropLeftovers() error {
	for left := p.op.Limit; left > 0; left -= pruneChunk {
		limit := min(pruneChunk, left)
		keys, err := p.tx.TakeLeftovers(limit)
		if err != nil {
			return err
		}
		for _, k := range keys {
			p.keep(k.Owner, -LeftoverBytes)
			if err := p.dropExpiredKey(k); err != nil {
				return err
			}
		}
		deletes, err := p.tx.TakeDeletes(limit)
		if err != nil {
			return err
		}
		for _, of := range deletes {
			p.keep(of.Owner, -DeleteBytes)
		}
		p.op.More = len(keys) == limit || len(deletes) == limit
		if !p.op.More || p.outOfTime() {
			return nil
		}
	}
	return nil
}

// dropExpiredKey deletes an idempotency key whose time has passed. A key that was used again
// stays: it has a new time, or its job exists.
func (a *applier) dropExpiredKey(k OwnedKey) error {
	use, err := a.tx.KeyUse(k)
	if err != nil || use == nil || use.Until.After(a.now) {
		return err
	}
	// The key was used again and now belongs to the new job.
	if j, err := a.find(k.Owner, use.Job); j != nil || err != nil {
		return err
	}
	return a.tx.DeleteKey(k)
}

// FormatCursor returns the cursor after a job, for lists in the order of numbers of jobs.
func FormatCursor(n int64) string { return strconv.FormatInt(n, 10) }

// ParseCursor parses a cursor; "" is the beginning.
func ParseCursor(text string) (n int64, err error) {
	if text == "" {
		return 0, nil
	}
	if n, err = strconv.ParseInt(text, 10, 64); err != nil || n < 0 {
		return 0, job.Errorf(job.Invalid, "%s is not a cursor of this list", job.Quote(text))
	}
	return n, nil
}
