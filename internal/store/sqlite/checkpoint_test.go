package sqlite

import (
	"os"
	"sync"
	"testing"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// newUnpausedStore returns a store whose commits and checkpoints do not wait for the disk, so that
// a slow disk cannot fail the test. Its checkpoints wait for reads for up to a minute, because a
// slow machine reads slowly.
func newUnpausedStore(t *testing.T) *bulkStore {
	t.Helper()
	a := newBulkStore(t, Options{Unsynced: true})
	a.stopBackground()
	a.checkpointer.conn.SetBusyTimeout(time.Minute)
	if err := sqlitex.ExecuteTransient(a.checkpointer.conn, "PRAGMA synchronous = OFF", nil); err != nil {
		t.Fatal(err)
	}
	a.checkpointer.done.Go(a.checkpointer.run)
	return a
}

// The log does not grow with every byte written, even if commits never pause.
func TestCheckpointRestartsLogUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("keeps up a load")
	}
	t.Parallel()
	a := newUnpausedStore(t)
	const batch, most = 4 << 20, 512 << 20
	for written := int64(batch); written < most; written += batch {
		b := store.NewBatch()
		for range 4 {
			j := job.Job{ID: job.NewID(), Owner: job.Owner{User: "u"}, Queue: "q", Priority: 5, MaxAttempts: 1}
			b.Submits = append(b.Submits, &store.Submit{Job: j, Input: make([]byte, batch/4)})
		}
		a.commit(b)
		info, err := os.Stat(a.path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < written/2 {
			return
		}
	}
	t.Fatalf("after %d MiB the log has not restarted", most>>20)
}

// Reads overlap without a gap, so one always needs the log. It still restarts within its limit.
func TestCheckpointBoundsLogWithConcurrentReaders(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes 200 MB")
	}
	a := newUnpausedStore(t)
	done := make(chan struct{})
	var reading sync.WaitGroup
	defer reading.Wait()
	defer close(done)
	for range 3 {
		reading.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, _, err := a.List(t.Context(), job.Filter{Owner: job.Owner{User: "u"}, Limit: 100}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for written := 0; written < 3*maxLogBytes; written += 3 << 20 {
		a.addEnded(250, 4<<10)
		info, err := os.Stat(a.path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > maxLogBytes {
			t.Fatalf("after %d MiB the log has %d", written>>20, info.Size()>>20)
		}
	}
}

// A long read, like that of a backup, makes the log grow. After the read it restarts and is
// truncated to its limit.
func TestCheckpointTruncatesLogAfterLongRead(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes 90 MB")
	}
	a := newBulkStore(t, Options{Unsynced: true})
	a.stopBackground()
	r := takeReader(t, &a.readers)
	if err := r.begin.run(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.nextExpiry.row(); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		a.addEnded(250, 4<<10)
	}
	if err := a.checkpointer.checkpoint(); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(a.path + "-wal"); info.Size() < maxLogBytes {
		t.Fatalf("the log must be long for this test; it has %d bytes", info.Size())
	}
	if a.checkpointer.restartFrames <= longLogFrames {
		t.Error("commits wait again and again for a long read")
	}
	r.nextExpiry.reset()
	if err := r.end.run(); err != nil {
		t.Fatal(err)
	}
	a.readers.giveBack(r)
	a.checkpointer.restartFrames = longLogFrames
	if err := a.checkpointer.checkpoint(); err != nil {
		t.Fatal(err)
	}
	a.addEnded(1, 10)
	if info, _ := os.Stat(a.path + "-wal"); info.Size() > maxLogBytes {
		t.Errorf("the log still has %d bytes", info.Size())
	}
}
