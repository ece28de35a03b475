package faulty

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

var _ store.Store = (*Store)(nil)

// readFault returns the planned error of a read, or nil.
func (s *Store) readFault(method string) error {
	if s.plan.Read == nil {
		return nil
	}
	return s.plan.Read(method)
}

// Job is [store.JobReader.Job], and fails as planned.
func (s *Store) Job(ctx context.Context, owner job.Owner, id job.ID) (j job.Job, err error) {
	if err = s.readFault("Job"); err == nil {
		j, err = s.inner.Job(ctx, owner, id)
	}
	return j, err
}

// List is [store.JobReader.List], and fails as planned.
func (s *Store) List(ctx context.Context, f job.Filter) (page []job.Job, next job.ID, err error) {
	if err = s.readFault("List"); err == nil {
		page, next, err = s.inner.List(ctx, f)
	}
	return page, next, err
}

// Input is [store.JobReader.Input], and fails as planned.
func (s *Store) Input(ctx context.Context, owner job.Owner, id job.ID) (input []byte, err error) {
	if err = s.readFault("Input"); err == nil {
		input, err = s.inner.Input(ctx, owner, id)
	}
	return input, err
}

// Result is [store.JobReader.Result], and fails as planned.
func (s *Store) Result(ctx context.Context, owner job.Owner, id job.ID, from int64, limit int) (r job.ResultPart, err error) {
	if err = s.readFault("Result"); err == nil {
		r, err = s.inner.Result(ctx, owner, id, from, limit)
	}
	return r, err
}

// Output is [store.JobReader.Output], and fails as planned.
func (s *Store) Output(ctx context.Context, owner job.Owner, id job.ID, after int64, maxBytes int) (j job.Job, entries []job.Entry, err error) {
	if err = s.readFault("Output"); err == nil {
		j, entries, err = s.inner.Output(ctx, owner, id, after, maxBytes)
	}
	return j, entries, err
}

// Text is [store.JobReader.Text], and fails as planned.
func (s *Store) Text(ctx context.Context, owner job.Owner, id job.ID, limit int) (j job.Job, text string, err error) {
	if err = s.readFault("Text"); err == nil {
		j, text, err = s.inner.Text(ctx, owner, id, limit)
	}
	return j, text, err
}

// Position is [store.JobReader.Position], and fails as planned.
func (s *Store) Position(ctx context.Context, owner job.Owner, id job.ID, limit int) (n int, err error) {
	if err = s.readFault("Position"); err == nil {
		n, err = s.inner.Position(ctx, owner, id, limit)
	}
	return n, err
}

// Idempotent is [store.JobReader.Idempotent], and fails as planned.
func (s *Store) Idempotent(ctx context.Context, owner job.Owner, key string) (id job.ID, hash [32]byte, err error) {
	if err = s.readFault("Idempotent"); err == nil {
		id, hash, err = s.inner.Idempotent(ctx, owner, key)
	}
	return id, hash, err
}

// Counts is [store.UpkeepReader.Counts], and fails as planned.
func (s *Store) Counts(ctx context.Context) (counts map[string]job.Counts, err error) {
	if err = s.readFault("Counts"); err == nil {
		counts, err = s.inner.Counts(ctx)
	}
	return counts, err
}

// Running is [store.UpkeepReader.Running], and fails as planned.
func (s *Store) Running(ctx context.Context, filter store.RunningFilter, after job.ID, limit int) (list []store.Running, err error) {
	if err = s.readFault("Running"); err == nil {
		list, err = s.inner.Running(ctx, filter, after, limit)
	}
	return list, err
}

// RunningOf is [store.UpkeepReader.RunningOf], and fails as planned.
func (s *Store) RunningOf(ctx context.Context, p job.Process, after job.ID, limit int) (list []store.Running, err error) {
	if err = s.readFault("RunningOf"); err == nil {
		list, err = s.inner.RunningOf(ctx, p, after, limit)
	}
	return list, err
}

// Leases is [store.UpkeepReader.Leases], and fails as planned.
func (s *Store) Leases(ctx context.Context, leases []job.Lease) (list []store.Running, err error) {
	if err = s.readFault("Leases"); err == nil {
		list, err = s.inner.Leases(ctx, leases)
	}
	return list, err
}

// Versions is [store.UpkeepReader.Versions], and fails as planned.
func (s *Store) Versions(ctx context.Context, jobs []store.OwnedID) (list []store.JobVersion, err error) {
	if err = s.readFault("Versions"); err == nil {
		list, err = s.inner.Versions(ctx, jobs)
	}
	return list, err
}

// NextDue is [store.UpkeepReader.NextDue], and fails as planned.
func (s *Store) NextDue(ctx context.Context) (ready, expires time.Time, err error) {
	if err = s.readFault("NextDue"); err == nil {
		ready, expires, err = s.inner.NextDue(ctx)
	}
	return ready, expires, err
}

// OldestQueued is [store.UpkeepReader.OldestQueued], and fails as planned.
func (s *Store) OldestQueued(ctx context.Context, queue string) (since time.Time, err error) {
	if err = s.readFault("OldestQueued"); err == nil {
		since, err = s.inner.OldestQueued(ctx, queue)
	}
	return since, err
}

// Now is the clock of the wrapped store, changed by [Plan.Clock].
func (s *Store) Now() time.Time {
	if s.plan.Clock == nil {
		return s.inner.Now()
	}
	return s.plan.Clock(s.inner.Now())
}

// Row is [store.RowReader.Row], and fails as planned.
func (s *Store) Row(ctx context.Context, set store.RowSet, id string) (row store.Row, err error) {
	if err = s.readFault("Row"); err == nil {
		row, err = s.inner.Row(ctx, set, id)
	}
	return row, err
}

// Tally is [store.RowReader.Tally], and fails as planned.
func (s *Store) Tally(ctx context.Context, owner job.Owner, name string) (c job.Counts, err error) {
	if err = s.readFault("Tally"); err == nil {
		c, err = s.inner.Tally(ctx, owner, name)
	}
	return c, err
}

// Rows is [store.RowReader.Rows], and fails as planned.
func (s *Store) Rows(ctx context.Context, set store.RowSet, page store.RowPage) (rows []store.Row, err error) {
	if err = s.readFault("Rows"); err == nil {
		rows, err = s.inner.Rows(ctx, set, page)
	}
	return rows, err
}

// TenantRows is [store.RowReader.TenantRows], and fails as planned.
func (s *Store) TenantRows(ctx context.Context, tenant string, limit int) (rows []store.Row, err error) {
	if err = s.readFault("TenantRows"); err == nil {
		rows, err = s.inner.TenantRows(ctx, tenant, limit)
	}
	return rows, err
}

// WithFiles is [store.UpkeepReader.WithFiles], and fails as planned.
func (s *Store) WithFiles(ctx context.Context, after string, limit int) (ids []job.ID, next string, err error) {
	if err = s.readFault("WithFiles"); err == nil {
		ids, next, err = s.inner.WithFiles(ctx, after, limit)
	}
	return ids, next, err
}

// Abandonable is [store.UpkeepReader.Abandonable], and fails as planned.
func (s *Store) Abandonable(ctx context.Context, after string, limit int) (jobs []job.Job, next string, err error) {
	if err = s.readFault("Abandonable"); err == nil {
		jobs, next, err = s.inner.Abandonable(ctx, after, limit)
	}
	return jobs, next, err
}

// Kept is [store.UpkeepReader.Kept], and fails as planned.
func (s *Store) Kept(ctx context.Context) (k store.Kept, err error) {
	if err = s.readFault("Kept"); err == nil {
		k, err = s.inner.Kept(ctx)
	}
	return k, err
}

// Size is [store.UpkeepReader.Size], and fails as planned.
func (s *Store) Size(ctx context.Context) (size int64, err error) {
	if err = s.readFault("Size"); err == nil {
		size, err = s.inner.Size(ctx)
	}
	return size, err
}
