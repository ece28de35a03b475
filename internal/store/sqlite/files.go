package sqlite

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// WithFiles lists jobs that have files; see [store.Upkeep].
func (s *Store) WithFiles(ctx context.Context, after int64, limit int) (ids []job.ID, next int64, err error) {
	err = s.read(ctx, func(r *reader) error {
		return r.withFiles.int(after).int(int64(limit)).each(func(c column) error {
			ids, next = append(ids, c.id(1)), c.int(0)
			return nil
		})
	})
	if len(ids) < limit {
		next = 0
	}
	return ids, next, err
}

// Abandonable lists unfinished jobs that may be abandoned; see [store.Upkeep].
func (s *Store) Abandonable(ctx context.Context, after int64, limit int) (jobs []job.Job, next int64, err error) {
	err = s.read(ctx, func(r *reader) error {
		var seen int
		seen, next, jobs, err = r.unfinished(after, limit)
		if seen < limit {
			next = 0
		}
		return err
	})
	return jobs, next, err
}

// unfinished reads rows of jobs that may be abandoned. It says how many it saw,
// those that were deleted included.
func (r *reader) unfinished(after int64, limit int) (seen int, last int64, jobs []job.Job, err error) {
	var rows []row
	err = r.abandonable.int(after).int(int64(limit)).each(func(c column) error {
		seen, last = seen+1, c.int(0)
		if c.int(afterJobColumns) != 0 {
			return nil
		}
		if j, err := scanRow(c); err == nil {
			rows = append(rows, j)
		}
		return nil
	})
	if err == nil {
		err = r.completeAll(rows)
	}
	for i := range rows {
		jobs = append(jobs, rows[i].Job)
	}
	return seen, last, jobs, err
}

// Size is how many bytes the store holds; see [store.Upkeep].
func (s *Store) Size(ctx context.Context) (size int64, err error) {
	err = s.read(ctx, func(r *reader) error {
		_, err := r.held.first(func(c column) error { size = c.int(0); return nil })
		return err
	})
	return size, err
}
