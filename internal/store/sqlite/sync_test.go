package sqlite

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// All waiters return once their commits are on disk, in any order, and also after a failed commit.
func TestSyncerServesEveryWaiter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	s, err := openSyncer(path, Options{PreallocateLog: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() != 1<<20 {
		t.Fatalf("the log has %v, want 1 MiB: %v", info, err)
	}
	var waiting sync.WaitGroup
	for i := range 200 {
		s.begin(true)
		reader := s.visible()
		written := i%7 != 0
		commit := s.end(written)
		waiting.Go(func() {
			if err := s.wait(commit, i%2 == 0); err != nil {
				t.Errorf("commit %d: %v", commit, err)
			}
			if err := s.wait(reader, false); err != nil {
				t.Errorf("a reader of commit %d: %v", reader, err)
			}
		})
	}
	waiting.Wait()
	if s.synced != s.written {
		t.Errorf("%d of %d commits are on disk", s.synced, s.written)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

// A failed sync is reported to all current and later waiters.
func TestFailedSyncIsPermanent(t *testing.T) {
	t.Parallel()
	s, err := openSyncer(filepath.Join(t.TempDir(), "jobs.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.begin(true)
	first := s.end(true)
	if err := s.wait(first, true); err != nil {
		t.Fatal(err)
	}
	_ = s.log.Close() // the next sync fails
	s.begin(true)
	second := s.end(true)
	for range 2 {
		if s.wait(second, true) == nil {
			t.Error("a commit that is not on disk is reported as durable")
		}
	}
	if err := s.wait(first, true); err != nil {
		t.Errorf("an older commit is no longer reported as durable: %v", err)
	}
}

// A read of side rows waits for the last commit that wrote side rows, and for no later one.
func TestReadOfRowsWaitsOnlyForLastRowCommit(t *testing.T) {
	t.Parallel()
	s := &syncer{}
	s.changed.L = &s.mu
	for i, c := range []struct {
		rows bool
		want uint64
	}{{false, 0}, {true, 2}, {false, 2}, {false, 2}, {true, 5}} {
		s.begin(c.rows)
		if got := s.visibleRows(); got != c.want || s.visible() != uint64(i+1) {
			t.Fatalf("after commit %d a read of rows waits for %d, want %d", i+1, got, c.want)
		}
		s.end(true)
	}
}
