package sqlite

import (
	"context"
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// applyAtEnd stores what [store.AtEnd] returns for a job's end, or for a retry that takes the
// end back. Every end and every retry passes here.
func (t *tx) applyAtEnd(j *row, result *job.Result) error {
	if t.atEnd == nil || len(j.Refs) == 0 && j.Tally == "" {
		return nil
	}
	var failed error
	end := store.End{Job: j.Job, Result: result}
	readable := func(err error) {
		if failed == nil && !errors.Is(err, errBlock) { // a job ends with the readable part of a damaged log
			failed = err
		}
	}
	end.Text = func(limit int) string {
		text, err := readText(t.q.text, j.n, tailView{}, limit)
		readable(err)
		return text
	}
	end.Entries = func(limit int) []job.Entry {
		log := &outputPage{bytesLeft: limit}
		readable(readEntries(t.q.output, j.n, tailView{}, log))
		return log.entries
	}
	if j.Tally != "" {
		counts, err := t.readTallyInBatch(tallyKeyOf(&j.Job))
		if err != nil {
			return err
		}
		end.Tally = &counts
	}
	after := t.atEnd(end)
	if failed != nil {
		return failed
	}
	_, refusal, err := t.checkRows(after.Rows)
	// Rows whose conditions fail are left out: they never prevent an end or a retry.
	if refusal == nil && err == nil {
		err = t.putRows(after.Rows)
	}
	for _, op := range after.Jobs {
		if err == nil {
			err = t.makeJob(op)
		}
	}
	return err
}

// makeJob stores a job that AtEnd returned, unless its id exists.
func (t *tx) makeJob(op *store.Submit) error {
	known, err := t.find(op.Job.Owner, op.Job.ID)
	if err != nil || known != nil {
		return err
	}
	// AtEnd may set only these fields; see [store.FollowUp].
	made := store.Submit{Job: op.Job, Input: op.Input, Delay: op.Delay}
	if err := t.create(&made); err != nil {
		return err
	}
	t.batch.FollowUps = append(t.batch.FollowUps, made.Job)
	return nil
}

// tallyKey names a tally: the counts of a group of one owner's jobs.
type tallyKey struct {
	owner job.Owner
	name  string
}

func tallyKeyOf(j *job.Job) tallyKey { return tallyKey{j.Owner, j.Tally} }

// tallyChange is the change of a tally by a batch.
type tallyChange struct {
	job.Counts
	rows    int64 // jobs stored in the tally, ended ones included
	removed bool  // jobs were removed, perhaps the last one
}

// tallyChange returns the batch's change of a tally, for the caller to add to.
func (t *tx) tallyChange(of tallyKey) *tallyChange {
	c := t.tallies[of]
	if c == nil {
		if t.tallies == nil {
			t.tallies = map[tallyKey]*tallyChange{}
		}
		c = &tallyChange{}
		t.tallies[of] = c
	}
	return c
}

// readTallyInBatch returns a tally's counts with the changes of the batch so far.
func (t *tx) readTallyInBatch(of tallyKey) (job.Counts, error) {
	c, err := readTally(t.q.tally, of)
	if d := t.tallies[of]; d != nil {
		c = addCounts(c, d.Counts)
	}
	return c, err
}

// saveTallies writes the changes of tallies, and deletes a tally without jobs.
func (t *tx) saveTallies() error {
	for of, d := range t.tallies {
		c := d.Counts
		err := t.q.addTally.text(of.owner.Tenant).text(of.owner.User).text(of.name).int(d.rows).
			int(c.Scheduled).int(c.Queued).int(c.Parked).int(c.Running).
			int(c.Succeeded).int(c.Failed).int(c.Cancelled).int(c.Expired).int(c.Retried).int(c.WaitingBytes).run()
		if err == nil && d.removed {
			err = t.q.deleteEmptyTally.text(of.owner.Tenant).text(of.owner.User).text(of.name).run()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func addCounts(a, b job.Counts) job.Counts {
	a.Scheduled += b.Scheduled
	a.Queued += b.Queued
	a.Parked += b.Parked
	a.Running += b.Running
	a.Succeeded += b.Succeeded
	a.Failed += b.Failed
	a.Cancelled += b.Cancelled
	a.Expired += b.Expired
	a.Retried += b.Retried
	a.WaitingBytes += b.WaitingBytes
	return a
}

const tallySQL = `SELECT scheduled, queued, parked, running, succeeded, failed, cancelled, expired, retried, waiting_bytes
	FROM tallies WHERE tenant = ? AND usr = ? AND name = ?`

func readTally(q *query, of tallyKey) (n job.Counts, err error) {
	_, err = q.text(of.owner.Tenant).text(of.owner.User).text(of.name).first(func(c column) error {
		n = job.Counts{
			Scheduled: c.int(0), Queued: c.int(1), Parked: c.int(2), Running: c.int(3), Succeeded: c.int(4),
			Failed: c.int(5), Cancelled: c.int(6), Expired: c.int(7), Retried: c.int(8), WaitingBytes: c.int(9),
		}
		return nil
	})
	return n, err
}

// Tally returns the counts of a tally; see [store.RowReader].
func (s *Store) Tally(ctx context.Context, owner job.Owner, name string) (n job.Counts, err error) {
	err = s.read(ctx, func(r *reader) error {
		n, err = readTally(r.tally, tallyKey{owner, name})
		return err
	})
	return n, err
}
