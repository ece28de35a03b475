package sqlite

import (
	"os"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// stopBackground stops the vacuum and the checkpointer, so that a test runs their steps itself.
func (a *bulkStore) stopBackground() {
	a.vacuum.stop()
	a.vacuum.quit = make(chan struct{})
	close(a.checkpointer.quit)
	a.checkpointer.done.Wait()
	a.checkpointer.quit = make(chan struct{})
}

func (a *bulkStore) pruneAll() {
	a.tb.Helper()
	a.now = a.now.Add(2 * time.Hour)
	b := store.NewBatch()
	b.Prunes = []*store.Prune{{Limit: 1 << 20}}
	a.commit(b)
}

func (a *bulkStore) checkpointedSize() int64 {
	a.tb.Helper()
	if err := a.checkpointer.checkpoint(); err != nil {
		a.tb.Fatal(err)
	}
	info, err := os.Stat(a.path)
	if err != nil {
		a.tb.Fatal(err)
	}
	return info.Size()
}

func TestVacuumShrinksFile(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes 60 MB")
	}
	a := newBulkStore(t, Options{Unsynced: true})
	a.stopBackground()
	a.addEnded(1000, 20_000)
	full := a.checkpointedSize()
	a.pruneAll()
	for range freeWindow {
		if a.vacuum.window.spare() > 0 {
			t.Fatal("pages are returned before they were free for a whole window")
		}
		if err := a.vacuum.sample(); err != nil {
			t.Fatal(err)
		}
	}
	steps := 0
	for ; a.vacuum.window.spare() > 0; steps++ {
		if err := a.vacuum.freeStep(); err != nil {
			t.Fatal(err)
		}
	}
	if size := a.checkpointedSize(); size > full/2 || size < freeReserve*pageSize/2 {
		t.Errorf("the file of %d bytes has %d after %d steps", full, size, steps)
	}
	if steps < 3 {
		t.Errorf("all pages were returned in %d steps", steps)
	}
	a.addEnded(10, 20_000) // and it is sound
}

// Pages that are used from time to time stay in the file.
func TestVacuumKeepsPagesUsedAgain(t *testing.T) {
	t.Parallel()
	w := window{}
	for i := range int64(2*freeWindow + 1) {
		free := int64(100_000)
		if i == freeWindow {
			free = freeReserve + 1000
		}
		w.add(free, 120_000)
		if got := w.spare(); i == freeWindow && got > 1000 {
			t.Errorf("%d pages are spare, want at most 1000", got)
		}
	}
	if w.spare() < 80_000 {
		t.Errorf("pages used before the window still count: %d pages are spare", w.spare())
	}
}

// An idle store writes nothing.
func TestIdleStoreWritesNothing(t *testing.T) {
	t.Parallel()
	a := newBulkStore(t, Options{Unsynced: true})
	a.stopBackground()
	a.addEnded(100, 20_000)
	a.pruneAll()
	a.checkpointedSize()
	before := a.fileTimes()
	for range 3 * freeWindow {
		if err := a.vacuum.runSecond(); err != nil {
			t.Fatal(err)
		}
	}
	idle := store.NewBatch()
	idle.Prunes = []*store.Prune{{Limit: 100}}
	a.commit(idle)
	a.checkpointedSize()
	if after := a.fileTimes(); after != before {
		t.Errorf("the files changed from %s to %s", before, after)
	}
}

// fileTimes returns when the files were last written.
func (a *bulkStore) fileTimes() (s string) {
	for _, name := range []string{a.path, a.path + "-wal"} {
		info, err := os.Stat(name)
		if err != nil {
			a.tb.Fatal(err)
		}
		s += info.ModTime().String() + " "
	}
	return s
}
