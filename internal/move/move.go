// Package move copies everything that a SQLite store and its directory of files have into an empty
// PostgreSQL database. The rows go through in batches; each is stored together with the place from
// which a later call goes on. Numbers, turns, revisions and cursors stay as they are.
package move

import (
	"context"
	"errors"
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/dump"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// Source is what is copied. Nobody may change it meanwhile.
type Source struct {
	Snapshot  *sqlite.Snapshot
	Files     string   // the directory of the jobs' files
	TokenKeys [][]byte // oldest first
}

// Report is how far a copy is.
type Report struct {
	Jobs, AllJobs int64
	Bytes         int64  // of all values, those of earlier calls included
	Table         string // the table of the copy that is read again; "" during the copy
}

// Copied is what a copy has stored, earlier calls included.
type Copied struct {
	Sums map[string]postgres.Sum // by table of the database
	// Lost lists jobs with files that are missing or have changed. They are copied without them.
	Lost []job.ID
	// Jobs and Bytes are what this call has stored.
	Jobs, Bytes int64
}

// ErrDiffers means that the copy does not have the rows of the source.
var ErrDiffers = errors.New("the copy is not what was read; move again with --restart, which deletes it and begins anew")

// Copy copies what an import lacks, and reads the copy again to compare it. It calls report often.
func Copy(ctx context.Context, from Source, to *postgres.Import, report func(Report)) (Copied, error) {
	c := &copier{ctx: ctx, from: from, to: to, report: report}
	c.before = c.bytes()
	var err error
	if !to.Copied() {
		err = c.run()
	}
	done := to.Progress()
	c.copied.Sums, c.copied.Bytes = done.Sums, c.bytes()-c.before
	for _, text := range done.Lost {
		id, failed := job.ParseID(text)
		c.copied.Lost, err = append(c.copied.Lost, id), errors.Join(err, failed)
	}
	return c.copied, err
}

// copier holds the state of one Copy.
type copier struct {
	ctx    context.Context
	from   Source
	to     *postgres.Import
	report func(Report)
	all    int64 // jobs
	done   int64 // of them
	before int64 // bytes at the start
	copied Copied
}

// bytes returns how much was sent.
func (c *copier) bytes() (n int64) {
	for _, s := range c.to.Progress().Sums {
		n += s.Bytes
	}
	return n
}

// A step copies a part. Its number is stored, so steps are only ever appended.
func (c *copier) steps() []func() error {
	s, to, ctx := c.from.Snapshot, c.to, c.ctx
	return []func() error{
		c.jobs,
		func() error { return s.Presences(func(p *dump.Presence) error { return to.Presence(ctx, p) }) },
		func() error { return s.Keys(func(k *dump.Key) error { return to.Key(ctx, k) }) },
		func() error { return s.Leftovers(func(l *dump.Leftover) error { return to.Leftover(ctx, l) }) },
		func() error { return s.Deleted(func(d *dump.Deleted) error { return to.Deleted(ctx, d) }) },
		func() error { return s.Rows(func(r *dump.Row) error { return to.Row(ctx, r) }) },
		func() error { return s.Kept(func(k *dump.Kept) error { return to.Kept(ctx, k) }) },
		func() error { return s.Tallies(func(t *dump.Tally) error { return to.Tally(ctx, t) }) },
		func() error { return s.Queues(func(q *dump.Queue) error { return to.Queue(ctx, q) }) },
	}
}

func (c *copier) run() error {
	all, left, err := c.from.Snapshot.CountJobs(c.to.Progress().After)
	if err != nil {
		return err
	}
	c.all, c.done = all, all-left
	steps := c.steps()
	for n := c.to.Progress().Step; n < len(steps); n++ {
		c.show("")
		if err := steps[n](); err != nil {
			return err
		}
		if err := c.to.Save(c.ctx, n+1, c.to.Progress().After); err != nil {
			return err
		}
	}
	if err := c.verify(); err != nil {
		return err
	}
	rest, err := c.rest()
	if err != nil {
		return err
	}
	return c.to.EndCopy(c.ctx, rest)
}

// rest reads what the source has besides rows.
func (c *copier) rest() (r postgres.Rest, err error) {
	s := c.from.Snapshot
	var errs [3]error
	r.TokenKeys = c.from.TokenKeys
	r.LastN, errs[0] = s.LastJob()
	r.IDSkew, errs[1] = s.IDSkew()
	r.Batches, errs[2] = s.Batches()
	return r, errors.Join(errs[:]...)
}

func (c *copier) show(table string) {
	c.report(Report{Jobs: c.done, AllJobs: c.all, Bytes: c.bytes(), Table: table})
}

func (c *copier) verify() (differs error) {
	err := c.to.Verify(c.ctx, c.show, func(defect string) { differs = errors.Join(differs, errors.New(defect)) })
	if err == nil && differs != nil {
		err = fmt.Errorf("%w: %w", ErrDiffers, differs)
	}
	return err
}

// reportEvery is the number of jobs between two reports.
const reportEvery = 256

// jobs copies the jobs with all that belongs to them.
func (c *copier) jobs() error {
	last := c.to.Progress().After
	err := c.from.Snapshot.Jobs(last, func(j *dump.Job) error {
		if err := c.job(j); err != nil {
			return err
		}
		c.copied.Jobs++
		c.done, last = c.done+1, j.N
		if c.to.ShouldSave() {
			if err := c.to.Save(c.ctx, 0, last); err != nil {
				return err
			}
			c.show("")
		} else if c.copied.Jobs%reportEvery == 0 {
			c.show("")
		}
		return c.ctx.Err()
	})
	if err == nil {
		err = c.to.Save(c.ctx, 0, last)
	}
	return err
}

func (c *copier) job(j *dump.Job) error {
	s := c.from.Snapshot
	input, err := s.Input(j)
	if err != nil {
		return err
	}
	if input == nil {
		input = []byte{} // every job has an input; only damage loses it
	}
	result, err := s.Result(j)
	if err != nil {
		return err
	}
	if err := c.to.Job(c.ctx, j, input, result); err != nil {
		return err
	}
	if err := s.Output(j, func(e dump.Entry) error { return c.to.Entry(c.ctx, j, e) }); err != nil {
		return err
	}
	return c.files(j)
}
