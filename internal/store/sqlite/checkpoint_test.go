package sqlite

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Under a load that never pauses the log is begun anew: it does not grow with what
// is written.
func TestTheLogIsBegunAnewUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	s, err := Open(t.Context(), path, Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	const batch, most = 4 << 20, 512 << 20
	for written := int64(batch); written < most; written += batch {
		b := store.NewBatch()
		for range 4 {
			j := job.Job{ID: job.NewID(), Owner: job.Owner{User: "u"}, Queue: "q", Priority: 5, MaxAttempts: 1}
			b.Submits = append(b.Submits, &store.Submit{Job: j, Input: make([]byte, batch/4)})
		}
		if err := store.Commit(t.Context(), s, b); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < written/2 {
			return
		}
	}
	t.Fatalf("after %d MiB the log still holds most of them", most>>20)
}
