package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// A backup of a store with concurrent commits is intact, opens, and has everything that was
// committed before it began.
func TestBackupCopiesStoreInUse(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes 30 MB")
	}
	a := newBulkStore(t, Options{Unsynced: true})
	a.addEnded(500, 20_000)
	done := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				a.addEnded(10, 20_000)
			}
		}
	})
	to := filepath.Join(t.TempDir(), "copy.db")
	steps, last := 0, int64(0)
	err := Backup(t.Context(), a.path, to, func(now, total int64) {
		if steps++; now < last || now > total {
			t.Errorf("step %d: %d of %d bytes, after %d", steps, now, total, last)
		}
		last = now
	})
	close(done)
	writing.Wait()
	if err != nil || steps < 2 {
		t.Fatalf("%d steps: %v", steps, err)
	}
	if err := Check(t.Context(), to, func(defect string) { t.Error(defect) }); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), to, Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	counts, err := s.Counts(t.Context())
	if err != nil || counts["q"].Succeeded < 500 {
		t.Errorf("the copy has %d of 500 jobs: %v", counts["q"].Succeeded, err)
	}
}

func TestBackupReportsCancel(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes 30 MB")
	}
	a := newBulkStore(t, Options{Unsynced: true})
	a.addEnded(500, 20_000)
	ctx, cancel := context.WithCancel(t.Context())
	err := Backup(ctx, a.path, filepath.Join(t.TempDir(), "copy.db"), func(now, total int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	a.addEnded(1, 10) // and the source still accepts batches
}

func TestFilesListsEveryJobWithFiles(t *testing.T) {
	t.Parallel()
	a := newBulkStore(t, Options{Unsynced: true})
	a.addEnded(10, 10)
	j := job.Job{
		ID: job.NewID(), Owner: job.Owner{User: "u"}, Queue: "q", Priority: 5, MaxAttempts: 1,
		Files: []job.File{{Name: "a.png", Size: 3}, {Name: "b.txt", Size: 4}}, InputBytes: 7,
	}
	b := store.NewBatch()
	b.Submits = []*store.Submit{{Job: j}}
	a.commit(b)
	calls := 0
	err := Files(a.path, func(_ job.Owner, id job.ID, files []job.File) error {
		calls++
		if id != j.ID || len(files) != 2 || files[1] != j.Files[1] {
			t.Errorf("%s has %v", id, files)
		}
		return nil
	})
	if err != nil || calls != 1 {
		t.Errorf("%d jobs have files: %v", calls, err)
	}
}
