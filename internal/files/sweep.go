package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A Lister lists the jobs that have files, in the order of a cursor that begins
// with 0 and ends with 0.
type Lister func(ctx context.Context, after int64, limit int) (ids []job.ID, next int64, err error)

const sweepPage = 1000 // ids

// Sweep removes the directories that no job names and that are older than the
// opening of d: a crash has left them. It is called once, before files are
// received. What is not called like a job is left alone.
func (d *Dir) Sweep(ctx context.Context, list Lister) (removed int, err error) {
	orphans, err := d.older()
	if err != nil {
		return 0, fmt.Errorf("the directory of the jobs' files cannot be read: %w", err)
	}
	for after, more := int64(0), len(orphans) > 0; more; more = after != 0 {
		var ids []job.ID
		if ids, after, err = list(ctx, after, sweepPage); err != nil {
			return 0, fmt.Errorf("which jobs have files cannot be read: %w", err)
		}
		for _, id := range ids {
			delete(orphans, id)
		}
	}
	for id := range orphans {
		d.Remove(id)
	}
	return len(orphans), nil
}

// older are the directories whose jobs' ids were made before d was opened.
func (d *Dir) older() (map[job.ID]struct{}, error) {
	dir, err := os.Open(d.root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	ids := map[job.ID]struct{}{}
	for {
		names, err := dir.Readdirnames(sweepPage)
		for _, name := range names {
			if id, err := job.ParseID(name); err == nil && id.Time().Before(d.opened) {
				ids[id] = struct{}{}
			}
		}
		if errors.Is(err, io.EOF) {
			return ids, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
