package server

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/files/pgfiles"
)

// openFiles opens what keeps the jobs' files: the data directory, or the database with the data
// directory as a cache.
func (c *components) openFiles(ctx context.Context) (err error) {
	if c.store.pool == nil {
		return c.openFilesDir(ctx)
	}
	c.shared, err = pgfiles.Open(c.store.pool, pgfiles.Options{
		MaxFile: c.cfg.Files.MaxBytes, Cache: c.data.files(), CacheBytes: c.cfg.Files.CacheBytes,
		KeepFree: max(c.cfg.MinFreeBytes, 1), Log: c.log,
	})
	if err == nil {
		c.files = c.shared
	}
	return err
}

// openFilesDir opens the directory of the jobs' files, and removes files that a crash left
// without a job. No submit runs yet, so no job can still name them.
func (c *components) openFilesDir(ctx context.Context) error {
	dir, err := files.Open(c.data.files(), files.Options{MaxFile: c.cfg.Files.MaxBytes, KeepFree: max(c.cfg.MinFreeBytes, 1), TrackSize: c.cfg.Retention.MaxBytes > 0, Log: c.log})
	if err != nil {
		return err
	}
	c.files = dir
	swept, err := dir.Sweep(ctx, c.store.WithFiles)
	if swept > 0 {
		c.log.Info("files that belonged to no job were removed", "jobs", swept)
	}
	return err
}

// removeStaleFiles removes files that other processes have left, until ctx ends.
func (c *components) removeStaleFiles(ctx context.Context) error {
	if c.shared == nil {
		return nil
	}
	return c.shared.Run(ctx)
}
