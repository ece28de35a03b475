package sqlite

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// WithFiles lists jobs that have files; see [store.Upkeep].
func (s *Store) WithFiles(ctx context.Context, after int64, limit int) (ids []job.ID, next int64, err error) {
	return nil, 0, nil
}

// Abandonable lists unfinished jobs that may be abandoned; see [store.Upkeep].
func (s *Store) Abandonable(ctx context.Context, after int64, limit int) (jobs []job.Job, next int64, err error) {
	return nil, 0, nil
}

// Size is how many bytes the store holds; see [store.Upkeep].
func (s *Store) Size(ctx context.Context) (size int64, err error) {
	err = s.read(ctx, func(r *reader) error {
		_, err := r.held.first(func(c column) error { size = c.int(0); return nil })
		return err
	})
	return size, err
}
