package faulty

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

var _ store.Store = (*Store)(nil)

// reading says whether the plan fails a read.
func (s *Store) reading(method string) error {
	if s.plan.Read == nil {
		return nil
	}
	return s.plan.Read(method)
}

// Job reads one job; see [store.Jobs].
func (s *Store) Job(ctx context.Context, owner job.Owner, id job.ID) (j job.Job, err error) {
	if err = s.reading("Job"); err == nil {
		j, err = s.inner.Job(ctx, owner, id)
	}
	return j, err
}

// List reads a page of jobs; see [store.Jobs].
func (s *Store) List(ctx context.Context, f job.Filter) (page []job.Job, next job.ID, err error) {
	if err = s.reading("List"); err == nil {
		page, next, err = s.inner.List(ctx, f)
	}
	return page, next, err
}

// Input reads a job's input; see [store.Jobs].
func (s *Store) Input(ctx context.Context, owner job.Owner, id job.ID) (input []byte, err error) {
	if err = s.reading("Input"); err == nil {
		input, err = s.inner.Input(ctx, owner, id)
	}
	return input, err
}

// Result reads what a job came to; see [store.Jobs].
func (s *Store) Result(ctx context.Context, owner job.Owner, id job.ID) (r job.Result, err error) {
	if err = s.reading("Result"); err == nil {
		r, err = s.inner.Result(ctx, owner, id)
	}
	return r, err
}

// Output reads a job and its log; see [store.Jobs].
func (s *Store) Output(ctx context.Context, owner job.Owner, id job.ID, after int64, maxBytes int) (j job.Job, entries []job.Entry, err error) {
	if err = s.reading("Output"); err == nil {
		j, entries, err = s.inner.Output(ctx, owner, id, after, maxBytes)
	}
	return j, entries, err
}

// Text joins what a job's last attempt said; see [store.Jobs].
func (s *Store) Text(ctx context.Context, owner job.Owner, id job.ID, limit int) (j job.Job, text string, err error) {
	if err = s.reading("Text"); err == nil {
		j, text, err = s.inner.Text(ctx, owner, id, limit)
	}
	return j, text, err
}

// Position counts who is before a queued job; see [store.Jobs].
func (s *Store) Position(ctx context.Context, owner job.Owner, id job.ID, most int) (n int, err error) {
	if err = s.reading("Position"); err == nil {
		n, err = s.inner.Position(ctx, owner, id, most)
	}
	return n, err
}

// Idempotent finds the job of a key; see [store.Jobs].
func (s *Store) Idempotent(ctx context.Context, owner job.Owner, key string) (id job.ID, hash [32]byte, err error) {
	if err = s.reading("Idempotent"); err == nil {
		id, hash, err = s.inner.Idempotent(ctx, owner, key)
	}
	return id, hash, err
}

// Counts reads the kept counts; see [store.Upkeep].
func (s *Store) Counts(ctx context.Context) (counts map[string]job.Counts, err error) {
	if err = s.reading("Counts"); err == nil {
		counts, err = s.inner.Counts(ctx)
	}
	return counts, err
}

// Running lists running jobs; see [store.Upkeep].
func (s *Store) Running(ctx context.Context, which store.Which, after job.ID, limit int) (list []store.Running, err error) {
	if err = s.reading("Running"); err == nil {
		list, err = s.inner.Running(ctx, which, after, limit)
	}
	return list, err
}

// RunningOf lists running jobs of a process; see [store.Upkeep].
func (s *Store) RunningOf(ctx context.Context, p job.Process, after job.ID, limit int) (list []store.Running, err error) {
	if err = s.reading("RunningOf"); err == nil {
		list, err = s.inner.RunningOf(ctx, p, after, limit)
	}
	return list, err
}

// Leases answers what leases hold; see [store.Upkeep].
func (s *Store) Leases(ctx context.Context, leases []job.Lease) (list []store.Running, err error) {
	if err = s.reading("Leases"); err == nil {
		list, err = s.inner.Leases(ctx, leases)
	}
	return list, err
}

// Standing tells where jobs stand; see [store.Upkeep].
func (s *Store) Standing(ctx context.Context, jobs []store.OwnedID) (list []store.Standing, err error) {
	if err = s.reading("Standing"); err == nil {
		list, err = s.inner.Standing(ctx, jobs)
	}
	return list, err
}

// NextDue is when the clock has something to do; see [store.Upkeep].
func (s *Store) NextDue(ctx context.Context) (ready, expires time.Time, err error) {
	if err = s.reading("NextDue"); err == nil {
		ready, expires, err = s.inner.NextDue(ctx)
	}
	return ready, expires, err
}

// OldestQueued is since when the head of a queue has waited; see [store.Upkeep].
func (s *Store) OldestQueued(ctx context.Context, queue string) (since time.Time, err error) {
	if err = s.reading("OldestQueued"); err == nil {
		since, err = s.inner.OldestQueued(ctx, queue)
	}
	return since, err
}

// Now is the wrapped store's clock, as the plan shows it.
func (s *Store) Now() time.Time {
	if s.plan.Clock == nil {
		return s.inner.Now()
	}
	return s.plan.Clock(s.inner.Now())
}

// Row reads one side row; see [store.Records].
func (s *Store) Row(ctx context.Context, of store.RowSet, id string) (row store.Row, err error) {
	if err = s.reading("Row"); err == nil {
		row, err = s.inner.Row(ctx, of, id)
	}
	return row, err
}

// Tally counts the jobs of a tally; see [store.Records].
func (s *Store) Tally(ctx context.Context, owner job.Owner, name string) (c job.Counts, err error) {
	if err = s.reading("Tally"); err == nil {
		c, err = s.inner.Tally(ctx, owner, name)
	}
	return c, err
}

// Rows lists side rows; see [store.Records].
func (s *Store) Rows(ctx context.Context, of store.RowSet, page store.RowPage) (rows []store.Row, err error) {
	if err = s.reading("Rows"); err == nil {
		rows, err = s.inner.Rows(ctx, of, page)
	}
	return rows, err
}

// WithFiles lists jobs that have files; see [store.Upkeep].
func (s *Store) WithFiles(ctx context.Context, after string, limit int) (ids []job.ID, next string, err error) {
	if err = s.reading("WithFiles"); err == nil {
		ids, next, err = s.inner.WithFiles(ctx, after, limit)
	}
	return ids, next, err
}

// Abandonable lists jobs that may be abandoned; see [store.Upkeep].
func (s *Store) Abandonable(ctx context.Context, after string, limit int) (jobs []job.Job, next string, err error) {
	if err = s.reading("Abandonable"); err == nil {
		jobs, next, err = s.inner.Abandonable(ctx, after, limit)
	}
	return jobs, next, err
}

// Size is how much the wrapped store holds.
func (s *Store) Size(ctx context.Context) (size int64, err error) {
	if err = s.reading("Size"); err == nil {
		size, err = s.inner.Size(ctx)
	}
	return size, err
}
