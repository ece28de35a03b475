package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// Check reads the whole database of a data directory, looks for the files of its jobs, and
// calls found for each defect. A server may be using the directory. An error means that the
// directory cannot be read.
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
	// A server may have deleted a job, and its files, since the job was read. Then the
	// second read does not list it.
	still, err := missingFiles(ctx, data, missing)
	for path := range still {
		found(fmt.Sprintf("the file %s is missing or partial", path))
	}
	return err
}

// CheckDatabase reads the whole database of a configuration and calls found for each defect.
// Servers may be using it. An error means that it cannot be read.
func CheckDatabase(ctx context.Context, cfg config.Config, found func(defect string)) error {
	return databaseError(cfg, withDatabase(ctx, cfg, func(db postgres.Beginner) error {
		status, err := postgres.Status(ctx, db)
		if err == nil {
			err = postgres.Usable(status)
		}
		if err == nil {
			err = postgres.Check(ctx, db, found)
		}
		if err == nil {
			err = postgres.CheckFiles(ctx, db, found)
		}
		return err
	}))
}

// checkData refuses a directory that no server has used, or one of another layout.
func checkData(path string) error {
	if err := checkLayout(path, wholeLayout); errors.Is(err, errCache) {
		return fmt.Errorf("%s is only a cache: the jobs of its server are in a PostgreSQL database, which PostgreSQL's own tools back up and check; docs/scaling.md says how", path)
	} else if err != nil {
		return err
	}
	if _, err := os.Stat(databaseIn(path)); err != nil {
		return fmt.Errorf("%s is no data directory of a server: %w", path, err)
	}
	return nil
}

// missingFiles returns the paths of jobs' files that are missing or partial. It looks at
// the given paths only, or at all for nil.
func missingFiles(ctx context.Context, data string, only map[string]bool) (map[string]bool, error) {
	missing := map[string]bool{}
	err := sqlite.Files(databaseIn(data), func(_ job.Owner, id job.ID, files []job.File) error {
		for _, f := range files {
			path := filepath.Join(filesIn(data), id.String(), f.Name)
			if only != nil && !only[path] {
				continue
			}
			if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Size() != f.Size {
				missing[path] = true
			}
		}
		return ctx.Err()
	})
	return missing, err
}
