// Package files keeps the files that come with jobs: [Dir] on the local disk, for one process;
// package pgfiles in a database, for several.
//
// The life of a file: it is received under the id of a job that does not exist yet
// ([Store.Stage]) and synced; then the job is stored. Once the job's delete is on disk, its files
// are removed ([Store.Remove]). A crash between two of these steps leaves files without a job,
// which are removed later. It never leaves a job without its files.
package files

import (
	"context"
	"io"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Store keeps the files of jobs. Any goroutine may call its methods.
type Store interface {
	// MaxFile is the largest size of a file, in bytes.
	MaxFile() int64
	// MaxJob is the largest size of the files of one job together, in bytes.
	MaxJob() int64
	// Stage begins to receive files under the id of a job that is not stored yet.
	Stage(id job.ID) *Stage
	// Open opens a job's file for reading. It returns [job.NotFound] when the file is gone. The
	// reads end with ctx.
	Open(ctx context.Context, id job.ID, f job.File) (io.ReadSeekCloser, error)
	// Fetch puts files of a job on the local disk. It may block, until ctx ends. paths are
	// absolute and in the order of list. The files stay there until release is called, once. An
	// error is the cause of ctx, or a [job.Fault] for the attempt that needs the files.
	Fetch(ctx context.Context, id job.ID, list []job.File) (paths []string, release func(), err error)
	// Remove removes the files of jobs that were deleted or never stored, for all processes. It
	// logs an error, and the files are then removed later.
	Remove(ids ...job.ID)
	// Size is the number of bytes of all files, without those that are being received.
	Size(ctx context.Context) (int64, error)
}
