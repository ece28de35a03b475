package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A Lister lists the jobs that have files, in the order of a cursor that is
// "" at the beginning and at the end.
type Lister func(ctx context.Context, after string, limit int) (ids []job.ID, next string, err error)

const sweepPage = 1000 // ids

// Sweep removes the directories that no job names and that are older than the
// opening of d: a crash has left them. It is called once, before files are
// received. What is not called like a job is left alone.
func (d *Dir) Sweep(ctx context.Context, list Lister) (removed int, err error) {
	there, orphans, err := d.listJobDirs()
	if err != nil {
		return 0, fmt.Errorf("the directory of the jobs' files cannot be read: %w", err)
	}
	for after, more := "", len(orphans) > 0; more; more = after != "" {
		var ids []job.ID
		if ids, after, err = list(ctx, after, sweepPage); err != nil {
			return 0, fmt.Errorf("which jobs have files cannot be read: %w", err)
		}
		for _, id := range ids {
			delete(orphans, id)
		}
	}
	for id := range orphans {
		d.removeAll(id)
		delete(there, id)
	}
	d.sizes.setUncounted(there)
	return len(orphans), nil
}

// listJobDirs finds the directories of jobs, where they are to be counted, and those of them
// whose jobs' ids were made before d was opened.
func (d *Dir) listJobDirs() (there, older map[job.ID]struct{}, err error) {
	dir, err := os.Open(d.root)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	there, older = map[job.ID]struct{}{}, map[job.ID]struct{}{}
	for {
		names, err := dir.Readdirnames(sweepPage)
		for _, name := range names {
			id, err := job.ParseID(name)
			if err != nil {
				continue
			}
			if d.options.TrackSize {
				there[id] = struct{}{}
			}
			if id.Time().Before(d.opened) {
				older[id] = struct{}{}
			}
		}
		if errors.Is(err, io.EOF) {
			return there, older, nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
}
