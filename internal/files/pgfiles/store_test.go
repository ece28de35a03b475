package pgfiles

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// Files that one process receives are read and fetched by another.
func TestFilesPassBetweenProcesses(t *testing.T) {
	t.Parallel()
	pgtest.InShort(t)
	d := database(t)
	a, b := newProcess(t, d.URL()), newProcess(t, d.URL())
	var contents []string
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize} {
		contents = append(contents, text(size))
	}
	id, list := a.put(contents...)
	paths, release := b.get(id, list, contents...)
	for i, f := range list {
		if want := filepath.Join(b.cache.path, id.String(), f.Name); paths[i] != want || !filepath.IsAbs(want) {
			t.Errorf("it lies at %s, want %s", paths[i], want)
		}
		if got := b.readAll(id, f); got != contents[i] {
			t.Errorf("%d bytes were read of %d", len(got), len(contents[i]))
		}
		r, err := b.Store.Open(t.Context(), id, f)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(r, []byte(contents[i])); err != nil {
			t.Error(err)
		}
	}
	release()
	if size, err := b.Size(t.Context()); err != nil || size != 6*chunkSize+1 {
		t.Errorf("the size is %d, %v", size, err)
	}
	if info, err := os.Stat(paths[1]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// The same without prepared statements, as behind a transaction pooler.
func TestFilesWithoutPreparedStatements(t *testing.T) {
	t.Parallel()
	d := database(t)
	c, err := pgxpool.ParseConfig(d.URL())
	if err != nil {
		t.Fatal(err)
	}
	c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	pool, err := pgxpool.NewWithConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	p := newProcess(t, d.URL())
	p.hooks.DB = pool
	content := text(chunkSize + 1)
	id, list := p.put(content, "")
	_, release := p.get(id, list, content, "")
	release()
	if err := errors.Join(p.removeStale(t.Context()), p.sweep(t.Context())); err != nil {
		t.Error(err)
	}
	p.Remove(id)
	if got := p.rows(); got != [2]int{} {
		t.Errorf("left are %v rows", got)
	}
}

// A remove at one process takes the files from all, and the copies of the others soon after.
func TestRemoveAtAnotherProcess(t *testing.T) {
	t.Parallel()
	d := database(t)
	a, b := newProcess(t, d.URL()), newProcess(t, d.URL())
	content := text(2*chunkSize + 5)
	id, list := a.put(content, "second")
	stays, staysList := a.put("stays")
	_, release := a.get(id, list, content, "second")
	_, releaseStays := a.get(stays, staysList, "stays")
	releaseStays()
	b.Remove(id, job.NewID())
	if got := a.rows(); got != [2]int{1, 1} {
		t.Errorf("left are %v rows", got)
	}
	if _, err := a.Store.Open(t.Context(), id, list[0]); job.CodeOf(err) != job.NotFound {
		t.Errorf("it can be opened: %v", err)
	}
	if _, _, err := b.Fetch(t.Context(), id, list); job.FaultOf(err).Code != "files_changed" || job.FaultOf(err).Class != job.Final {
		t.Errorf("it can be fetched: %v", err)
	}
	for _, used := range []bool{true, false} {
		if !used {
			release()
		}
		if err := a.removeStale(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(a.cached(), id.String()); got != used {
			t.Errorf("used: %v, the copies are there: %v", used, got)
		}
	}
	if !slices.Contains(a.cached(), stays.String()) {
		t.Error("the copies of another job were removed")
	}
	if size, err := a.Size(t.Context()); err != nil || size != int64(len("stays")) {
		t.Errorf("the size is %d, %v", size, err)
	}
}

// Refused and broken uploads leave nothing in the database.
func TestDiscardLeavesNothing(t *testing.T) {
	t.Parallel()
	d := database(t)
	p := newProcess(t, d.URL(), func(o *Options) { o.MaxFile = 2 * chunkSize })
	broken := errors.New("the connection was cut")
	for rule, tt := range map[string]struct {
		name string
		from io.Reader
		code job.Code
	}{
		"a file that is too large": {"a", strings.NewReader(text(2*chunkSize + 1)), job.TooLarge},
		"two files with one name":  {"x/f", strings.NewReader("x"), job.Invalid},
		"a broken connection":      {"a", io.MultiReader(strings.NewReader(text(chunkSize)), iotest.ErrReader(broken)), job.Internal},
	} {
		s := p.Stage(job.NewID())
		if _, err := s.Receive(t.Context(), "f", "", strings.NewReader("before")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Receive(t.Context(), tt.name, "", tt.from); job.CodeOf(err) != tt.code {
			t.Errorf("%s: %v", rule, err)
		}
		s.Discard()
		if got := p.rows(); got != [2]int{} {
			t.Errorf("%s: left are %v rows", rule, got)
		}
	}
}

// Files that are being received, or whose job was not submitted, are nobody's: they are neither
// read nor counted.
func TestUncommittedFilesAreNotThere(t *testing.T) {
	t.Parallel()
	p := newProcess(t, database(t).URL())
	s := p.Stage(job.NewID())
	f, err := s.Receive(t.Context(), "a", "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Store.Open(t.Context(), s.ID(), f); job.CodeOf(err) != job.NotFound {
		t.Error(err)
	}
	if size, err := p.Size(t.Context()); size != 0 || err != nil {
		t.Error(size, err)
	}
	s.Discard()
}

// A process that was killed between the receipt of files and the submit of their job leaves them.
// Another process removes them a day later by the database's clock, not earlier, and never those
// of jobs.
func TestSweepRemovesByAge(t *testing.T) {
	t.Parallel()
	d := database(t)
	killed := newProcess(t, d.URL())
	content := text(chunkSize + 1)
	killed.put(content, "b")
	half := killed.Stage(job.NewID())
	if _, err := half.Receive(t.Context(), "c", "", strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	stored, list := killed.put(content)
	killed.run("insert into with_files (n, id) values (1, $1)", [16]byte(stored))

	other := newProcess(t, d.URL())
	for _, step := range []struct {
		age  time.Duration
		rows [2]int
	}{{0, [2]int{4, 7}}, {23 * time.Hour, [2]int{4, 7}}, {time.Hour, [2]int{1, 2}}, {1000 * time.Hour, [2]int{1, 2}}} {
		other.age(step.age)
		if err := other.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := other.rows(); got != step.rows {
			t.Errorf("%v older: %v rows, want %v", step.age, got, step.rows)
		}
	}
	_, release := other.get(stored, list, content)
	release()
	// The upload whose files were removed can no longer be committed, and leaves no chunks.
	if _, err := half.Receive(t.Context(), "d", "", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := half.Commit(t.Context()); job.CodeOf(err) != job.Unavailable {
		t.Errorf("half of the files are committed: %v", err)
	}
	half.Discard()
	if got := other.rows(); got != [2]int{1, 2} {
		t.Errorf("%v rows", got)
	}
}

// As long as one file of an upload arrives, the earlier ones are not left over.
func TestSlowUploadIsNotSwept(t *testing.T) {
	t.Parallel()
	p := newProcess(t, database(t).URL())
	s := p.Stage(job.NewID())
	if _, err := s.Receive(t.Context(), "a", "", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	p.age(25 * time.Hour)
	if _, err := s.Receive(t.Context(), "b", "", strings.NewReader("y")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.sweep(t.Context()), s.Commit(t.Context())); err != nil {
		t.Error(err)
	}
}

// An upload that goes on while a sweep takes it for left over keeps its files. Any number of old
// jobs with files does not hide what is left over.
func TestSweepChecksAgain(t *testing.T) {
	t.Parallel()
	p := newProcess(t, database(t).URL())
	s := p.Stage(job.NewID())
	if _, err := s.Receive(t.Context(), "a", "", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	p.run("with j as (insert into with_files (n, id) select n, gen_random_uuid() from generate_series(1, 5000) n returning id) " +
		"insert into files (id, job, name, state, at) select id, id, 'a', 1, 0 from j")
	p.put("left")
	p.age(25 * time.Hour)
	p.setBefore(func(sql string) error {
		if sql == markLeft {
			p.setBefore(nil)
			return s.Commit(t.Context())
		}
		return nil
	})
	if err := p.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := p.rows(); got != [2]int{5001, 1} {
		t.Errorf("%v rows", got)
	}
	if _, err := p.Store.Open(t.Context(), s.ID(), s.Files()[0]); err != nil {
		t.Error(err)
	}
}

// A removal that ended early is ended by the next sweep of any process.
func TestSweepEndsRemovals(t *testing.T) {
	t.Parallel()
	d := database(t)
	a, b := newProcess(t, d.URL()), newProcess(t, d.URL())
	id, _ := a.put(text(chunkSize+1), "b")
	a.setBefore(func(sql string) error {
		if strings.HasPrefix(sql, "delete") {
			return &pgconn.PgError{Code: "XX000"}
		}
		return nil
	})
	a.Remove(id)
	if got := a.rows(); got != [2]int{2, 3} {
		t.Errorf("%v rows", got)
	}
	if _, err := b.Store.Open(t.Context(), id, job.File{Name: "f1"}); job.CodeOf(err) != job.NotFound {
		t.Errorf("a file of a deleted job can be read: %v", err)
	}
	if err := b.sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if got := a.rows(); got != [2]int{} {
		t.Errorf("left are %v rows", got)
	}
}

// An upload of 200 MiB is never in memory as a whole, neither while it arrives nor while it is
// fetched or read.
func TestLargeFileUsesLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes 200 MiB")
	}
	const size, bound = 200 << 20, 4 << 20
	p := newProcess(t, database(t).URL())
	before := heap()
	most := uint64(0)
	watch := func(n int64) {
		if n%(20<<20) == 0 {
			most = max(most, heap())
		}
	}
	s := p.Stage(job.NewID())
	f, err := s.Receive(t.Context(), "large", "", &watched{Reader: io.LimitReader(zeros{}, size), at: watch})
	if err == nil {
		err = s.Commit(t.Context())
	}
	if err != nil || f.Size != size {
		t.Fatal(f.Size, err)
	}
	if most > before+bound {
		t.Errorf("the upload holds %d KiB", (most-before)>>10)
	}
	most = 0
	p.setBefore(func(string) error {
		p.mu.Lock()
		n := int64(p.chunks) * chunkSize
		p.mu.Unlock()
		watch(n)
		return nil
	})
	_, release, err := p.Fetch(t.Context(), s.ID(), s.Files())
	if err != nil {
		t.Fatal(err)
	}
	release()
	if most > before+bound {
		t.Errorf("the fetch holds %d KiB", (most-before)>>10)
	}
	p.setBefore(nil)
	most = 0
	r, err := p.Store.Open(t.Context(), s.ID(), f)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, &watched{Reader: r, at: watch}); n != size || err != nil {
		t.Error(n, err)
	}
	if most > before+bound {
		t.Errorf("the read holds %d KiB", (most-before)>>10)
	}
}

// heap returns the bytes in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// watched calls at with the number of bytes after each read. It hides that a reader may be more.
type watched struct {
	io.Reader
	n  int64
	at func(int64)
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.n += int64(n)
	w.at(w.n)
	return n, err
}

func TestReceiveStopsWithContext(t *testing.T) {
	t.Parallel()
	p := newProcess(t, database(t).URL())
	s := p.Stage(job.NewID())
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("the client left")
	_, err := s.Receive(ctx, "a", "", &watched{Reader: io.LimitReader(zeros{}, 2*chunkSize), at: func(int64) { cancel(left) }})
	if !errors.Is(err, left) {
		t.Error(err)
	}
	s.Discard()
	if got := p.rows(); got != [2]int{} {
		t.Errorf("left are %v rows", got)
	}
}
