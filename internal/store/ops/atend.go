package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// applyAtEnd stores what [store.AtEnd] returns for a job's end, or for a retry that takes the
// end back. Every end and every retry passes here.
func (a *applier) applyAtEnd(j *Job, result *job.Result) error {
	if a.atEnd == nil || len(j.Refs) == 0 && j.Tally == "" {
		return nil
	}
	var failed error
	note := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	end := store.End{Job: j.Job, Result: result}
	end.Text = func(limit int) string {
		text, err := a.tx.Text(j, limit)
		note(err)
		return text
	}
	end.Entries = func(limit int) []job.Entry {
		entries, err := a.tx.Entries(j, limit)
		note(err)
		return entries
	}
	if j.Tally != "" {
		counts, err := a.tallyInBatch(tallyOf(&j.Job))
		if err != nil {
			return err
		}
		end.Tally = &counts
	}
	after := a.atEnd(end)
	if failed != nil {
		return failed
	}
	_, refusal, err := a.checkRows(after.Rows)
	// Rows whose conditions fail are left out: they never prevent an end or a retry.
	if refusal == nil && err == nil {
		err = a.putRows(after.Rows)
	}
	for _, op := range after.Jobs {
		if err == nil {
			err = a.makeJob(op)
		}
	}
	return err
}

// makeJob stores a job that AtEnd returned, unless its id exists.
func (a *applier) makeJob(op *store.Submit) error {
	known, err := a.find(op.Job.Owner, op.Job.ID)
	if err != nil || known != nil {
		return err
	}
	// AtEnd may set only these fields; see [store.FollowUp].
	made := store.Submit{Job: op.Job, Input: op.Input, Delay: op.Delay}
	if err := a.create(&made); err != nil {
		return err
	}
	a.b.FollowUps = append(a.b.FollowUps, made.Job)
	return nil
}

func tallyOf(j *job.Job) Tally { return Tally{j.Owner, j.Tally} }

// tallyChange returns the batch's change of a tally, for the caller to add to.
func (a *applier) tallyChange(of Tally) *TallyChange {
	c := a.tallies[of]
	if c == nil {
		if a.tallies == nil {
			a.tallies = map[Tally]*TallyChange{}
		}
		c = &TallyChange{}
		a.tallies[of] = c
	}
	return c
}

// tallyInBatch returns a tally's counts with the changes of the batch so far.
func (a *applier) tallyInBatch(of Tally) (job.Counts, error) {
	c, err := a.tx.TallyCounts(of)
	if d := a.tallies[of]; d != nil {
		c = addCounts(c, d.Counts)
	}
	return c, err
}

// saveTallies writes the changes of tallies.
func (a *applier) saveTallies() error {
	for of, change := range a.tallies {
		if err := a.tx.AddToTally(of, change); err != nil {
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
