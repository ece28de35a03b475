package engine

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// runToEnd submits jobs with inputs of the given size and runs them until they end.
func (w *sweepHarness) runToEnd(jobs, size int) (ids []job.ID) {
	w.t.Helper()
	for range jobs {
		ids = append(ids, w.submit(Request{Input: make([]byte, size)}))
		c := <-w.jobs
		if _, err := w.Finish(w.t.Context(), c.Lease(), job.Outcome{}); err != nil {
			w.t.Fatal(err)
		}
	}
	return ids
}

// countLeft counts the jobs that are still stored.
func (w *sweepHarness) countLeft(ids []job.ID) (n int) {
	w.t.Helper()
	for _, id := range ids {
		switch _, err := w.Get(w.t.Context(), job.Owner{User: "u"}, id); job.CodeOf(err) {
		case "":
			n++
		case job.NotFound:
		default:
			w.t.Fatal(err)
		}
	}
	return n
}

func (w *sweepHarness) storeSize() int64 {
	w.t.Helper()
	n, err := w.store.Size(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// A store above its maximum size loses its oldest ended jobs early, until its size is
// nine tenths of the maximum. Jobs that have not ended stay.
func TestShrinkDeletesTheOldest(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	waiting := w.submit(Request{Delay: time.Minute, Input: make([]byte, 100_000)})
	ids := w.runToEnd(100, 100_000)
	p := newPruner(w.Engine, w.storeSize()+1)
	if err := p.shrink(t.Context()); err != nil || w.countLeft(ids) != len(ids) {
		t.Fatalf("below the maximum, %d of %d jobs are there: %v", w.countLeft(ids), len(ids), err)
	}
	p.maxBytes = w.storeSize() / 2
	if err := p.shrink(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.countLeft(ids); n == 0 || n > 50 || w.countLeft(ids[100-n:]) != n {
		t.Errorf("%d jobs are left, %d of them among the newest", n, w.countLeft(ids[100-n:]))
	}
	if size := w.storeSize(); size > p.maxBytes/10*9 {
		t.Errorf("the store holds %d of the %d bytes that it may", size, p.maxBytes)
	}
	w.get(waiting)
}

// Conversations are never deleted early. The log says when jobs are deleted for them, and whose
// take most.
func TestShrinkNamesCauseInLog(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	w.runToEnd(10, 10_000)
	var log bytes.Buffer
	w.log = slog.New(slog.NewTextHandler(&log, nil))
	p := newPruner(w.Engine, w.storeSize()/2)
	if err := p.shrink(t.Context()); err != nil || strings.Contains(log.String(), "more than half") || !strings.Contains(log.String(), "conversations=0") {
		t.Errorf("without conversations: %v, %s", err, &log)
	}
	log.Reset()
	row := store.Row{Owner: job.Owner{User: "ann"}, Kind: "message", ID: "a", Body: make([]byte, 1<<20)}
	if err := w.Write(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	p = newPruner(w.Engine, 1<<20)
	if err := p.shrink(t.Context()); err != nil || !strings.Contains(log.String(), "more than half") || !strings.Contains(log.String(), "most_of=ann") {
		t.Errorf("with conversations: %v, %s", err, &log)
	}
}

// slowFiles are the files of jobs. Their removal takes a minute.
type slowFiles struct {
	mu    sync.Mutex
	bytes map[job.ID]int64 // guarded by mu
}

func (s *slowFiles) put(id job.ID, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes[id] = bytes
}

func (s *slowFiles) remove(ids []job.ID) {
	time.Sleep(time.Minute)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.bytes, id)
	}
}

func (s *slowFiles) size(context.Context) (total int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.bytes {
		total += n
	}
	return total, nil
}

// The files of jobs count as size. Shrink waits for files that are being removed, so that it
// deletes no more jobs than necessary.
func TestShrinkCountsFiles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, files := &clock{now: time.Unix(1_800_000_000, 0)}, &slowFiles{bytes: map[job.ID]int64{}}
		s := NewTestStore(t, sqlite.Options{Clock: c.Now, Unsynced: true})
		w := newSweepHarnessOver(t, c, Config{Store: s, RenewEvery: time.Hour, RemoveFiles: files.remove, FileBytes: files.size})
		ctx, stop := context.WithCancel(t.Context())
		var removing sync.WaitGroup
		removing.Go(func() { w.fileRemover.run(ctx) })
		defer removing.Wait()
		defer stop()
		const size = 10 << 20
		var ids []job.ID
		for range 10 {
			id := w.submit(Request{ID: job.NewID(), Files: []job.File{{Name: "a", Size: size}}, Input: []byte("{}")})
			files.put(id, size)
			claimed := <-w.jobs
			if _, err := w.Finish(t.Context(), claimed.Lease(), job.Outcome{}); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		w.pruner.maxBytes = 10*size + w.storeSize()
		if err := w.pruner.shrink(t.Context()); err != nil || w.countLeft(ids) != 10 {
			t.Fatalf("below the maximum, %d of 10 jobs are there: %v", w.countLeft(ids), err)
		}
		w.pruner.maxBytes = 5*size + size/2 + w.storeSize()
		if err := w.pruner.shrink(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := w.countLeft(ids); n != 4 || w.countLeft(ids[6:]) != 4 {
			t.Errorf("%d jobs are left, %d of them among the newest four", n, w.countLeft(ids[6:]))
		}
		if left, _ := files.size(t.Context()); left != 4*size {
			t.Errorf("%d bytes of files are left", left)
		}
	})
}

// If no job can be deleted, shrink waits a while before it tries again.
func TestShrinkGivesUpWithoutEndedJobs(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	waiting := w.submit(Request{Delay: time.Minute, Input: make([]byte, 100_000)})
	p := newPruner(w.Engine, 1)
	for range 3 {
		if err := p.shrink(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if p.exhaustedAt.IsZero() {
		t.Error("shrink did not notice that it cannot reach one byte")
	}
	w.get(waiting)
}

// A pass continues where the last one ended, and from time to time a pass begins with the oldest
// jobs again. So a later pass deletes the jobs that one pass leaves.
func TestRetentionPassContinuesAndRestarts(t *testing.T) {
	if testing.Short() {
		t.Skip("stores many jobs")
	}
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	first := w.runToEnd(chunkRows+10, 10)
	w.clock.pass(30 * time.Minute)
	waiting := w.submit(Request{Delay: 24 * time.Hour})
	w.clock.pass(31 * time.Minute)
	pass := func() {
		t.Helper()
		if err := w.pruner.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	pass()
	if n := w.countLeft(first); n != 0 {
		t.Errorf("%d jobs past their time are left", n)
	}
	w.clock.pass(time.Hour) // the waiting job is old, and the pass skips it
	w.runToEnd(chunkRows+10, 10)
	w.clock.pass(61 * time.Minute)
	pass()
	if _, err := w.Cancel(t.Context(), job.Owner{User: "u"}, waiting); err != nil {
		t.Fatal(err)
	}
	w.clock.pass(61 * time.Minute)
	pass()
	if w.countLeft([]job.ID{waiting}) != 1 {
		t.Error("the pass deleted a job that the test needs it to leave")
	}
	w.pruner.fullPassAt = time.Time{}
	pass()
	if w.countLeft([]job.ID{waiting}) != 0 {
		t.Error("a pass that begins with the oldest left it")
	}
}
