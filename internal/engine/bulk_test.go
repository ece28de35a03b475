package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// RetryAll returns an error on a full disk. It does not skip the jobs silently.
func TestRetryAllIsRefusedOnFullDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		owner := job.Owner{User: "u"}
		for range 3 {
			id := r.submit(Request{Delay: time.Hour})
			if _, err := r.Cancel(t.Context(), owner, id); err != nil {
				t.Fatal(err)
			}
		}
		r.failCommits(faulty.DiskFull, anyOp)
		if n, err := r.ChangeMany(t.Context(), RetryAll, job.Filter{Owner: owner}); n != 0 || job.CodeOf(err) != job.NoSpace {
			t.Errorf("%d were changed, %v", n, err)
		}
		r.stopFailing()
		if n, err := r.ChangeMany(t.Context(), RetryAll, job.Filter{Owner: owner}); n != 3 || err != nil {
			t.Errorf("with free space %d were retried, %v", n, err)
		}
	})
}

// A bulk call whose deadline passes submits no more ops. It counts the submitted ops once they
// are on disk.
func TestDeleteAllCountsOpsUnderWayAtDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		owner := job.Owner{User: "u"}
		for range 5 {
			r.submit(Request{Delay: time.Hour})
		}
		ctx, over := context.WithTimeout(t.Context(), time.Second)
		defer over()
		slow := func(b *store.Batch) faulty.Fault {
			if len(b.Deletes) > 0 {
				return faulty.Fault{Before: func() { time.Sleep(3 * time.Second) }}
			}
			return faulty.Fault{}
		}
		r.fault.Store(&slow)
		if n, err := r.ChangeMany(ctx, DeleteAll, job.Filter{Owner: owner}); n != 5 || err != nil {
			t.Errorf("of 5 deletes %d were counted, %v", n, err)
		}
		if n, err := r.ChangeMany(ctx, DeleteAll, job.Filter{Owner: owner}); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after its time %d were changed, %v", n, err)
		}
	})
}
