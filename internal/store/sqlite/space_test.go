package sqlite

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// newSmallDisk returns a store on a disk with as much free space as the test sets.
func newSmallDisk(t *testing.T, o Options) (*bulkStore, *atomic.Int64) {
	t.Helper()
	free := &atomic.Int64{}
	free.Store(1 << 30)
	o.Unsynced, o.Reserve = true, 4<<20
	o.Free = func() (int64, bool) { return free.Load(), true }
	a := newBulkStore(t, o)
	a.stopBackground()
	return a, free
}

func (a *bulkStore) reserveFileSize() int64 {
	info, err := os.Stat(a.path + "-reserve")
	if err != nil {
		return 0
	}
	return info.Size()
}

// Bytes in the log that are not in the database yet reduce the free space until they are copied.
func TestFreeSpaceSubtractsUncheckpointedLog(t *testing.T) {
	t.Parallel()
	a, _ := newSmallDisk(t, Options{})
	a.checkpointedSize()
	before, _ := a.FreeSpace()
	a.addEnded(10, 100_000)
	if now, known := a.FreeSpace(); !known || before-now < 3_000_000 {
		t.Errorf("with 3 MB in the log %d fewer bytes are free", before-now)
	}
	a.checkpointedSize()
	if now, _ := a.FreeSpace(); before-now > 1<<20 {
		t.Errorf("with an empty log %d fewer bytes are free, although the disk is unchanged", before-now)
	}
}

// A used part of the reserve is restored once there is space for it.
func TestReserveShrinksInStepsAndRefills(t *testing.T) {
	t.Parallel()
	a, free := newSmallDisk(t, Options{})
	before, _ := a.FreeSpace()
	if a.reserveFileSize() != 4<<20 {
		t.Fatalf("the reserve has %d bytes", a.reserveFileSize())
	}
	for left := int64(4 << 20); left > 0; left -= reserveStep {
		if !a.space.shrinkReserve() || a.reserveFileSize() != left-reserveStep {
			t.Fatalf("after %d bytes the reserve has %d", left, a.reserveFileSize())
		}
	}
	if a.space.shrinkReserve() {
		t.Error("the reserve shrank below zero")
	}
	if now, _ := a.FreeSpace(); before-now != 4<<20 {
		t.Errorf("without the reserve %d fewer bytes are free", before-now)
	}
	free.Store(1 << 20)
	if a.space.fillReserve(); a.reserveFileSize() != 0 {
		t.Error("the reserve was refilled without space for it")
	}
	free.Store(1 << 30)
	if a.space.fillReserve(); a.reserveFileSize() != 4<<20 {
		t.Errorf("the reserve has %d bytes", a.reserveFileSize())
	}
}

// File systems neither compress the reserve nor share its blocks.
func TestReserveIsNoise(t *testing.T) {
	t.Parallel()
	a, _ := newSmallDisk(t, Options{})
	raw, err := os.ReadFile(a.path + "-reserve")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]int{}
	for at := 0; at < len(raw); at += 512 {
		if first, again := blocks[string(raw[at:at+512])]; again {
			t.Fatalf("the block at %d is a copy of that at %d", at, first)
		}
		blocks[string(raw[at:at+512])] = at
	}
	var packed bytes.Buffer
	w, _ := flate.NewWriter(&packed, flate.BestSpeed)
	if _, err := w.Write(raw[:128<<10]); err != nil || w.Close() != nil || packed.Len() < 128<<10 {
		t.Errorf("128 KiB were compressed to %d bytes: %v", packed.Len(), err)
	}
}

// Only ops that end work or free space may use the reserve, and not all of it.
func TestReserveIsForEndsAndDeletes(t *testing.T) {
	t.Parallel()
	a, free := newSmallDisk(t, Options{})
	end := func(size int) *store.Finish { return &store.Finish{Result: &job.Result{Body: make([]byte, size)}} }
	for _, tt := range []struct {
		name string
		op   any
		may  bool
	}{
		{"a submit", &store.Submit{}, false},
		{"a retry", &store.Retry{}, false},
		{"a claim", &store.Claim{}, false},
		{"rows", &store.Write{}, false},
		{"a renewal", &store.Renew{}, true},
		{"output", &store.Append{}, true},
		{"an end", end(10), true},
		{"an end that would fill it", end(3 << 20), false},
		{"a cancel", &store.Cancel{}, true},
		{"a delete", &store.Delete{}, true},
		{"a prune", &store.Prune{}, true},
	} {
		b := store.NewBatch()
		b.Add(tt.op)
		if a.mayUseReserve(b) != tt.may {
			t.Errorf("%s may use the reserve: %v", tt.name, !tt.may)
		}
	}
	a.space.shrinkReserve()
	free.Store(-1 << 20) // 2 of the 3 MiB of the reserve are left
	for _, tt := range []struct {
		op      any
		tooMuch bool
	}{
		{&store.Append{Entries: []job.Entry{{Data: make([]byte, 500<<10)}}}, true},
		{end(300 << 10), false},
		{end(1 << 20), true},
		{end(10), false},
		{&store.Delete{}, false},
	} {
		b := store.NewBatch()
		b.Add(tt.op)
		if a.exceedsReserve(b) != tt.tooMuch {
			t.Errorf("%T exceeds the reserve: %v", tt.op, !tt.tooMuch)
		}
	}
}

// On a nearly full disk, pages of deleted jobs are returned at once.
func TestVacuumReturnsPagesAtOnceOnNearlyFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the vacuum")
	}
	t.Parallel()
	a, free := newSmallDisk(t, Options{KeepFree: 64 << 20})
	a.addEnded(100, 20_000)
	full := a.checkpointedSize()
	a.pruneAll()
	free.Store(65 << 20)
	for range 3 {
		if err := a.vacuum.sample(); err != nil {
			t.Fatal(err)
		}
		for a.vacuum.spare() > 0 {
			if err := a.vacuum.freeStep(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if size := a.checkpointedSize(); size > full/10 {
		t.Errorf("the file of %d bytes still has %d", full, size)
	}
	free.Store(1 << 30)
	a.addEnded(100, 20_000)
	a.pruneAll()
	if err := a.vacuum.sample(); err != nil || a.vacuum.spare() > 0 {
		t.Errorf("with free space, the vacuum would return pages that may be needed: %d, %v", a.vacuum.spare(), err)
	}
}

// A log that grew during a long read is truncated on a nearly full disk, even without a commit.
func TestCheckpointTruncatesLogOnNearlyFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the checkpointer")
	}
	t.Parallel()
	a, free := newSmallDisk(t, Options{})
	r := takeReader(t, &a.readers)
	if err := r.begin.run(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.nextExpiry.row(); err != nil {
		t.Fatal(err)
	}
	for a.space.logSize() <= longLogFrames*pageSize {
		a.addEnded(250, 4<<10)
	}
	if a.checkpointer.logTooLong() {
		t.Error("a long log is reported as too long although the disk has space")
	}
	free.Store(1 << 20)
	if err := a.checkpointer.truncateLog(); err != nil || !a.checkpointer.logTooLong() {
		t.Errorf("during the read the log has %d bytes, %v", a.space.logSize(), err)
	}
	r.nextExpiry.reset()
	if err := r.end.run(); err != nil {
		t.Fatal(err)
	}
	a.readers.giveBack(r)
	if err := a.checkpointer.truncateLog(); err != nil || a.checkpointer.logTooLong() {
		t.Errorf("the log still has %d bytes, %v", a.space.logSize(), err)
	}
	a.addEnded(10, 10) // and it still works
}

// A database that cannot grow refuses new work, and accepts deletes.
func TestFullDatabaseAcceptsDeletes(t *testing.T) {
	t.Parallel()
	a, _ := newSmallDisk(t, Options{MaxPages: 400})
	var ids []job.ID
	for {
		b := store.NewBatch()
		j := job.Job{ID: job.NewID(), Owner: job.Owner{User: "u"}, Queue: "q", Priority: 5, MaxAttempts: 1}
		b.Submits = []*store.Submit{{Job: j, Input: make([]byte, 50_000)}}
		err := store.Commit(context.Background(), a.Store, b)
		if errors.Is(err, store.ErrFull) && errors.Is(err, store.ErrNotCommitted) {
			break
		}
		if err != nil || len(ids) > 100 {
			t.Fatal(err)
		}
		ids = append(ids, j.ID)
	}
	if a.reserveFileSize() != 4<<20 {
		t.Errorf("a submit used the reserve: it has %d bytes", a.reserveFileSize())
	}
	for _, id := range ids {
		b := store.NewBatch()
		b.Deletes = []*store.Delete{{Owner: job.Owner{User: "u"}, ID: id}}
		if a.commit(b); b.Deletes[0].Err != nil {
			t.Fatal(b.Deletes[0].Err)
		}
	}
}

// A close leaves as much of the reserve as fits, and the next open on a full disk uses it.
func TestCloseLeavesReserveForNextOpen(t *testing.T) {
	t.Parallel()
	a, free := newSmallDisk(t, Options{})
	for a.space.shrinkReserve() {
	}
	free.Store(1<<20 + 5)
	if err := a.Close(); err != nil || a.reserveFileSize() != 1<<20+5 {
		t.Fatalf("the reserve has %d bytes, %v", a.reserveFileSize(), err)
	}
	free.Store(0)
	s, err := Open(t.Context(), a.path, Options{Unsynced: true, Reserve: 4 << 20, Free: func() (int64, bool) { return 0, true }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if a.reserveFileSize() != 0 {
		t.Errorf("after an opening on a full disk the reserve has %d bytes", a.reserveFileSize())
	}
}
