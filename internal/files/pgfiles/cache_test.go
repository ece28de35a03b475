package pgfiles

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Files are copied once for all attempts of their job, also for attempts that begin together.
func TestAttemptsShareCopies(t *testing.T) {
	t.Parallel()
	d := database(t)
	a, b := newProcess(t, d.URL()), newProcess(t, d.URL())
	contents := []string{text(3 * chunkSize), "b"}
	id, list := a.put(contents...)
	var all sync.WaitGroup
	for _, p := range []*process{a, a, b, b} {
		all.Go(func() {
			_, release, err := p.Fetch(t.Context(), id, list)
			if err != nil {
				t.Error(err)
				return
			}
			release()
		})
	}
	all.Wait()
	_, release := a.get(id, list, contents...)
	release()
	release() // a second call does nothing
	for _, p := range []*process{a, b} {
		if n := p.chunkReads(); n != 4 {
			t.Errorf("4 chunks were read %d times", n)
		}
		if j := p.cache.jobs[id]; j == nil || j.users != 0 || p.cache.bytes != 3*chunkSize+1 {
			t.Errorf("in the cache: %+v, %d bytes", j, p.cache.bytes)
		}
	}
}

// A copy that is not as it came is fetched again, whatever has replaced it.
func TestDamagedCopiesAreFetchedAgain(t *testing.T) {
	t.Parallel()
	p := newProcess(t, database(t).URL())
	contents := []string{text(2 * chunkSize), "b"}
	id, list := p.put(contents...)
	elsewhere := t.TempDir()
	if err := os.WriteFile(filepath.Join(elsewhere, "f1"), []byte("b"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, damage := range map[string]func(dir, path string) error{
		"removed": func(_, path string) error { return os.Remove(path) },
		"longer":  func(_, path string) error { return os.WriteFile(path, []byte(contents[0]+"x"), 0o600) },
		"changed": func(_, path string) error {
			return os.WriteFile(path, append([]byte("x"), contents[0][1:]...), 0o600)
		},
		"a directory": func(_, path string) error {
			return errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700))
		},
		"a link": func(_, path string) error {
			return errors.Join(os.Remove(path), os.Symlink(filepath.Join(elsewhere, "f1"), path))
		},
		"a link for its directory": func(dir, _ string) error { return errors.Join(os.RemoveAll(dir), os.Symlink(elsewhere, dir)) },
		"no directory":             func(dir, _ string) error { return os.RemoveAll(dir) },
		"a link for a part": func(dir, path string) error {
			return errors.Join(os.Remove(path), os.Symlink(filepath.Join(elsewhere, "f1"), filepath.Join(dir, partName)))
		},
	} {
		paths, release := p.get(id, list, contents...)
		release()
		if err := damage(filepath.Dir(paths[0]), paths[0]); err != nil {
			t.Fatal(what, err)
		}
		_, release = p.get(id, list, contents...)
		release()
		if got, err := os.ReadFile(filepath.Join(elsewhere, "f1")); string(got) != "b" || err != nil {
			t.Fatalf("%s: a file elsewhere was changed: %q, %v", what, got, err)
		}
		if left, _ := os.ReadDir(elsewhere); len(left) != 1 {
			t.Fatalf("%s: files were written elsewhere: %v", what, left)
		}
	}
}

// The cache holds no more than its bound, and drops what was used longest ago, but nothing that
// an attempt uses.
func TestCacheDropsLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	p := newProcess(t, database(t).URL(), func(o *Options) { o.CacheBytes = 30 })
	var ids []job.ID
	var lists [][]job.File
	content := text(10)
	for range 5 {
		id, list := p.put(content)
		ids, lists = append(ids, id), append(lists, list)
	}
	use := func(i int) func() {
		_, release := p.get(ids[i], lists[i], content)
		return release
	}
	holds := func(want ...int) {
		t.Helper()
		var names []string
		for _, i := range want {
			names = append(names, ids[i].String())
		}
		slices.Sort(names)
		if got := p.cached(); !slices.Equal(got, names) || p.cache.bytes != int64(10*len(want)) {
			t.Errorf("in the cache are %v and %d bytes, not %v", got, p.cache.bytes, want)
		}
	}
	release0 := use(0)
	use(1)()
	use(2)()
	use(1)()
	use(3)() // drops 2: 0 is in use and 1 was used later
	holds(0, 1, 3)
	release3 := use(3)
	release4 := use(4)
	holds(0, 3, 4)

	// All are in use: the next one waits until one is released.
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("cancelled")
	ended := make(chan error)
	go func() {
		_, _, err := p.Fetch(ctx, ids[1], lists[1])
		ended <- err
	}()
	got := make(chan func())
	p.waitFor(1)
	go func() {
		_, release, err := p.Fetch(t.Context(), ids[2], lists[2])
		if err != nil {
			t.Error(err)
		}
		got <- release
	}()
	p.waitFor(2)
	cancel(left)
	if err := <-ended; !errors.Is(err, left) {
		t.Error(err)
	}
	release0()
	(<-got)()
	holds(2, 3, 4)
	release3()
	release4()
}

// Who waits behind a large job gets its room once that job has given up.
func TestWaitBehindLargeJob(t *testing.T) {
	t.Parallel()
	p := newProcess(t, database(t).URL(), func(o *Options) { o.CacheBytes = 30 })
	held, heldList := p.put(text(20))
	large, largeList := p.put(text(20) + "x")
	small, smallList := p.put("small")
	_, release := p.get(held, heldList, text(20))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() {
		_, _, err := p.Fetch(ctx, large, largeList)
		ended <- err
	}()
	p.waitFor(1)
	got := make(chan error)
	go func() {
		_, release, err := p.Fetch(t.Context(), small, smallList)
		if err == nil {
			release()
		}
		got <- err
	}()
	p.waitFor(2)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	release()
}

// waitFor waits until so many fetches wait for room.
func (p *process) waitFor(n int) {
	for {
		p.cache.mu.Lock()
		waiting := p.cache.waiting.Len()
		p.cache.mu.Unlock()
		if waiting == n {
			return
		}
		runtime.Gosched()
	}
}

// Files that are larger than the whole cache are fetched while no other job has files.
func TestFilesLargerThanCache(t *testing.T) {
	t.Parallel()
	p := newProcess(t, database(t).URL(), func(o *Options) { o.CacheBytes = 10 })
	small, smallList := p.put("small")
	large, largeList := p.put(text(100))
	_, release := p.get(small, smallList, "small")
	got := make(chan func())
	go func() {
		_, release, err := p.Fetch(t.Context(), large, largeList)
		if err != nil {
			t.Error(err)
		}
		got <- release
	}()
	p.waitFor(1)
	release()
	release = <-got
	if cached := p.cached(); !slices.Equal(cached, []string{large.String()}) {
		t.Errorf("in the cache are %v", cached)
	}
	release()
}

// On a full disk old copies are dropped; if that is not enough, the job waits.
func TestFullDiskOfCache(t *testing.T) {
	t.Parallel()
	var p *process
	space := int64(25)
	p = newProcess(t, database(t).URL(), func(o *Options) {
		o.Free = func() (int64, bool) { return space - p.cache.bytes, true } // called with the cache's mu
	})
	content := text(10)
	first, firstList := p.put(content)
	second, secondList := p.put(content)
	_, release := p.get(first, firstList, content)
	release()
	_, release = p.get(second, secondList, content)
	if cached := p.cached(); !slices.Equal(cached, []string{second.String()}) {
		t.Errorf("in the cache are %v", cached)
	}
	_, _, err := p.Fetch(t.Context(), first, firstList)
	if f := job.FaultOf(err); f.Code != "files_unavailable" || f.Class != job.Wait {
		t.Errorf("with a full disk: %v", err)
	}
	release()
	_, release = p.get(first, firstList, content)
	release()
}

// A start removes the copies of an earlier process, and nothing else.
func TestStartEmptiesCache(t *testing.T) {
	t.Parallel()
	d := database(t)
	before := newProcess(t, d.URL())
	id, list := before.put("x")
	before.get(id, list, "x")
	if err := os.WriteFile(filepath.Join(before.cache.path, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	after := newProcess(t, d.URL(), func(o *Options) { o.Cache = before.cache.path })
	if got := after.cached(); !slices.Equal(got, []string{"other"}) {
		t.Errorf("left are %v", got)
	}
	_, release := after.get(id, list, "x")
	release()
}

// A disk that fills up during a copy is no fault of the job, which waits.
func TestFullDiskDuringCopy(t *testing.T) {
	t.Parallel()
	for err, code := range map[error]string{
		full(&os.PathError{Op: "write", Err: syscall.ENOSPC}): "the server's disk has no room for the files of the job",
		full(&os.PathError{Op: "write", Err: syscall.EDQUOT}): "the server's disk has no room for the files of the job",
		full(&os.PathError{Op: "write", Err: syscall.EIO}):    "the server could not copy the files of the job to its disk",
	} {
		if f := faultOf(err); f.Code != "files_unavailable" || f.Class != job.Wait || f.Message != code {
			t.Errorf("%v: %+v", err, f)
		}
	}
}

func BenchmarkFiles(b *testing.B) {
	p := newProcess(b, database(b).URL())
	const size = 32 << 20
	var uploads, fetches, reads time.Duration
	for b.Loop() {
		began := time.Now()
		s := p.Stage(job.NewID())
		f, err := s.Receive(b.Context(), "a", "", io.LimitReader(zeros{}, size))
		if err == nil {
			err = s.Commit(b.Context())
		}
		uploads += time.Since(began)
		began = time.Now()
		_, release, fetchErr := p.Fetch(b.Context(), s.ID(), s.Files())
		if err = errors.Join(err, fetchErr); err != nil {
			b.Fatal(err)
		}
		release()
		fetches += time.Since(began)
		began = time.Now()
		r, err := p.Store.Open(b.Context(), s.ID(), f)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); n != size || err != nil {
			b.Fatal(n, err)
		}
		reads += time.Since(began)
		p.Remove(s.ID())
	}
	for unit, d := range map[string]time.Duration{"upload-MB/s": uploads, "fetch-MB/s": fetches, "read-MB/s": reads} {
		b.ReportMetric(float64(b.N)*size/1e6/d.Seconds(), unit)
	}
	b.ReportMetric(0, "ns/op")
}
