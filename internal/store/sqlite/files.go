package sqlite

import (
	"context"
	"strconv"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// WithFiles lists jobs that have files; see [store.UpkeepReader].
func (s *Store) WithFiles(ctx context.Context, after string, limit int) (ids []job.ID, next string, err error) {
	from, err := parseRowCursor(after)
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
		next = rowCursor(last)
	}
	return ids, next, err
}

// rowCursor returns the cursor after row n, for lists in the order of row numbers.
func rowCursor(n int64) string { return strconv.FormatInt(n, 10) }

// parseRowCursor returns the row number of a cursor; 0 for "".
func parseRowCursor(text string) (n int64, err error) {
	if text == "" {
		return 0, nil
	}
	if n, err = strconv.ParseInt(text, 10, 64); err != nil || n < 0 {
		return 0, job.Errorf(job.Invalid, "%s is not a cursor of this list", job.Quote(text))
	}
	return n, nil
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
