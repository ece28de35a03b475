package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Lister lists the jobs that have files, page by page. The cursor is "" at the beginning; a next
// of "" ends the list.
type Lister func(ctx context.Context, after string, limit int) (ids []job.ID, next string, err error)

const sweepPage = 1000 // ids

// Sweep removes the directories that a crash has left: those without a job whose ids were made
// before d was opened. It is called once, before files are received. It does not touch entries
// whose names are not job ids.
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

// listJobDirs returns the ids of all job directories (only with [Options.TrackSize]), and the
// older ids, which were made before d was opened.
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
