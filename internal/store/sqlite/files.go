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

// Size is how many bytes the store holds; see [store.Upkeep].
func (s *Store) Size(ctx context.Context) (size int64, err error) {
	err = s.read(ctx, func(r *reader) error {
		_, err := r.held.first(func(c column) error { size = c.int(0); return nil })
		return err
	})
	return size, err
}
