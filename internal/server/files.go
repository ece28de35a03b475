package server

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/files"
)

// openFiles opens the directory of the jobs' files, and removes files that a crash left
// without a job. No submit runs yet, so no job can still name them.
func (c *components) openFiles(ctx context.Context) error {
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
