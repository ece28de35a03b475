package sqlite

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// WithFiles lists jobs that have files; see [store.UpkeepReader].
func (s *Store) WithFiles(ctx context.Context, after string, limit int) (ids []job.ID, next string, err error) {
	from, err := ops.ParseCursor(after)
	if err != nil {
		return nil, "", err
	}
	last := int64(0)
	err = s.read(ctx, func(r *reader) error {
		return r.withFiles.int(from).int(int64(limit)).each(func(c column) error {
			ids, last = append(ids, c.id(1)), c.int(0)
			return nil
		})
	})
	if err == nil && len(ids) == limit {
		next = ops.FormatCursor(last)
	}
	return ids, next, err
}

// Size returns the bytes in use; see [store.UpkeepReader]. Pages that a commit frees stop
// counting at once, whether or not the vacuum returns them to the disk.
func (s *Store) Size(ctx context.Context) (size int64, err error) {
	err = s.read(ctx, func(r *reader) error {
		_, err := r.storedBytes.first(func(c column) error { size = c.int(0); return nil })
		return err
	})
	return size, err
}
