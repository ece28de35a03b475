package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// Check reads the whole database of a data directory, which a server may be using,
// looks for the files of its jobs, and calls found for each defect. An error says
// that the directory cannot be used, or not be read.
func Check(ctx context.Context, data string, found func(defect string)) error {
	if err := checkData(data); err != nil {
		return err
	}
	if err := sqlite.Check(ctx, databaseIn(data), found); err != nil {
		return err
	}
	missing, err := missingFiles(ctx, data, nil)
	if err != nil || len(missing) == 0 {
		return err
	}
	// A job may have been deleted since it was read, and its files after it.
	still, err := missingFiles(ctx, data, missing)
	for path := range still {
		found(fmt.Sprintf("the file %s is not there, or not whole", path))
	}
	return err
}

// checkData refuses a directory that no server has used, or one of another layout.
func checkData(path string) error {
	if _, err := os.Stat(databaseIn(path)); err != nil {
		return fmt.Errorf("%s is no data directory of a server: %w", path, err)
	}
	return checkLayout(path)
}

// missingFiles are the files that jobs should have, by their paths; of some paths
// only, or, for nil, of all.
func missingFiles(ctx context.Context, data string, some map[string]bool) (map[string]bool, error) {
	missing := map[string]bool{}
	err := sqlite.Files(databaseIn(data), func(_ job.Owner, id job.ID, files []job.File) error {
		for _, f := range files {
			path := filepath.Join(filesIn(data), id.String(), f.Name)
			if some != nil && !some[path] {
				continue
			}
			if info, err := os.Stat(path); err != nil || info.Size() != f.Size {
				missing[path] = true
			}
		}
		return ctx.Err()
	})
	return missing, err
}
