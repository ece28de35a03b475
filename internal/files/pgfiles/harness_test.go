package pgfiles

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// database returns a database with the schema, on the server that all tests share.
func database(t testing.TB) pgtest.Database {
	t.Helper()
	d := pgtest.Shared(t).Schema(t)
	migrate(t, d.URL())
	return d
}

func migrate(t testing.TB, url string) {
	t.Helper()
	if _, err := postgres.Up(t.Context(), connect(t, url)); err != nil {
		t.Fatal(err)
	}
}

// connect returns a pool that is closed when the test ends.
func connect(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	c.MaxConns = 2
	pool, err := pgxpool.NewWithConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// process is a Store as of a process of its own, with a cache and a pool of its own.
type process struct {
	*Store
	t testing.TB
	hooks
}

// hooks is the database of a process. A test sees the statements that run.
type hooks struct {
	DB
	mu sync.Mutex
	// guarded by mu
	before func(sql string) error // called before each statement; an error is returned instead
	chunks int                    // reads of chunks
}

func (h *hooks) call(sql string) error {
	h.mu.Lock()
	before := h.before
	if strings.HasPrefix(sql, "select data") {
		h.chunks++
	}
	h.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(sql)
}

func (h *hooks) setBefore(f func(sql string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = f
}

// chunkReads returns how many chunks were read since the last call.
func (h *hooks) chunkReads() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.chunks
	h.chunks = 0
	return n
}

func (h *hooks) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := h.call(sql); err != nil {
		return pgconn.CommandTag{}, err
	}
	return h.DB.Exec(ctx, sql, args...)
}

func (h *hooks) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := h.call(sql); err != nil {
		return nil, err
	}
	return h.DB.Query(ctx, sql, args...)
}

// newProcess returns a process on the database at url.
func newProcess(t testing.TB, url string, change ...func(*Options)) *process {
	t.Helper()
	p := &process{t: t, hooks: hooks{DB: connect(t, url)}}
	o := Options{Cache: filepath.Join(t.TempDir(), "cache"), KeepFree: 1}
	for _, f := range change {
		f(&o)
	}
	var err error
	if p.Store, err = Open(&p.hooks, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Store.Close() })
	return p
}

// put receives the files of a job. Each file is its content; its name is "f" and its index.
func (p *process) put(contents ...string) (job.ID, []job.File) {
	p.t.Helper()
	s := p.Stage(job.NewID())
	for i, text := range contents {
		if _, err := s.Receive(p.t.Context(), fmt.Sprint("f", i), "text/plain", strings.NewReader(text)); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := s.Commit(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	return s.ID(), s.Files()
}

// get fetches files and checks their contents. The caller calls release.
func (p *process) get(id job.ID, list []job.File, contents ...string) (paths []string, release func()) {
	p.t.Helper()
	paths, release, err := p.Fetch(p.t.Context(), id, list)
	if err != nil {
		p.t.Fatal(err)
	}
	for i, path := range paths {
		if got, err := os.ReadFile(path); err != nil || string(got) != contents[i] {
			p.t.Errorf("%s has %d bytes, not the %d that were sent: %v", path, len(got), len(contents[i]), err)
		}
	}
	return paths, release
}

// cached returns the jobs in the directory of the cache.
func (p *process) cached() (names []string) {
	p.t.Helper()
	entries, err := os.ReadDir(p.cache.path)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// rows returns the number of files and of chunks in the database.
func (p *process) rows() (n [2]int) {
	p.t.Helper()
	rows, err := p.hooks.DB.Query(p.t.Context(), "select count(*) from files union all select count(*) from file_chunks")
	if err != nil {
		p.t.Fatal(err)
	}
	counts, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		p.t.Fatal(err)
	}
	return [2]int(counts)
}

// run runs a statement in the database.
func (p *process) run(sql string, args ...any) {
	p.t.Helper()
	if _, err := p.hooks.DB.Exec(p.t.Context(), sql, args...); err != nil {
		p.t.Fatal(err)
	}
}

// age makes all files as old as if they had been received that long ago.
func (p *process) age(d time.Duration) {
	p.t.Helper()
	p.run("update files set at = at - $1", d.Microseconds())
}

// text returns a content of n bytes that differs in each chunk.
func text(n int) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%d,", b.Len())
	}
	return b.String()[:n]
}

// readAll reads a file through Open.
func (p *process) readAll(id job.ID, f job.File) string {
	p.t.Helper()
	r, err := p.Store.Open(p.t.Context(), id, f)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}
