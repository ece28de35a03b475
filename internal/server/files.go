package server

import (
	"context"
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// openFiles opens the directory of the files that come with jobs, and sweeps out what
// a crash has left there. Nothing runs yet, so that what no job names never will be.
func (h *house) openFiles(ctx context.Context) (err error) {
	if h.files, err = files.Open(h.data.files(), files.Options{MaxFile: h.cfg.Files.MaxBytes, KeepFree: max(h.cfg.MinFreeBytes, 1), TrackSize: h.cfg.Retention.MaxBytes > 0, Log: h.log}); err != nil {
		return err
	}
	swept, err := h.files.Sweep(ctx, h.store.WithFiles)
	if swept > 0 {
		h.log.Info("files that belonged to no job were removed", "jobs", swept)
	}
	return err
}

// free tells what new work may write to the disk of the data directory; nil where the
// system does not tell.
func (h *house) free() func() (int64, error) {
	if _, known := h.store.FreeSpace(); !known {
		return nil
	}
	return func() (int64, error) {
		free, known := h.store.FreeSpace()
		if !known {
			return 0, errors.New("the system does not tell any more")
		}
		return free, nil
	}
}

// removeFiles removes the files of jobs that are no more.
func (h *house) removeFiles(ids []job.ID) { h.files.Remove(ids...) }
