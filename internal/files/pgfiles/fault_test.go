package pgfiles

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// Connections that are lost during an upload, a fetch and a read cost time only.
func TestLostConnections(t *testing.T) {
	t.Parallel()
	d := database(t)
	p := newProcess(t, d.URL())
	content := text(6 * chunkSize)
	killed := 0
	kill := func(n int64) {
		if n == 3*chunkSize {
			killed += d.KillBackends(t)
		}
	}
	s := p.Stage(job.NewID())
	f, err := s.Receive(t.Context(), "a", "", &watched{Reader: strings.NewReader(content), at: kill})
	if err == nil {
		d.KillBackends(t)
		err = s.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	p.setBefore(func(sql string) error {
		if p.chunks == 3 {
			killed += d.KillBackends(t)
		}
		return nil
	})
	_, release := p.get(s.ID(), s.Files(), content)
	release()
	p.setBefore(nil)
	r, err := p.Store.Open(t.Context(), s.ID(), f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(&watched{Reader: r, at: kill})
	if err != nil || string(got) != content {
		t.Errorf("%d bytes were read, %v", len(got), err)
	}
	if killed < 3 {
		t.Errorf("%d connections were lost", killed)
	}
}

// A statement whose answer was lost runs again, with the same effect.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	p := newProcess(t, database(t).URL())
	p.hooks.DB = &losesAnswers{DB: p.hooks.DB}
	content := text(chunkSize + 1)
	id, list := p.put(content, "b")
	p.hooks.DB = p.hooks.DB.(*losesAnswers).DB
	if got := p.rows(); got != [2]int{2, 3} {
		t.Errorf("%v rows", got)
	}
	_, release := p.get(id, list, content, "b")
	release()
	p.hooks.DB = &losesAnswers{DB: p.hooks.DB}
	p.Remove(id)
	p.hooks.DB = p.hooks.DB.(*losesAnswers).DB
	if got := p.rows(); got != [2]int{} {
		t.Errorf("left are %v rows", got)
	}
}

// losesAnswers runs every other Exec and returns that the connection was lost.
type losesAnswers struct {
	DB
	n int
}

func (l *losesAnswers) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	tag, err := l.DB.Exec(ctx, sql, args...)
	if l.n++; l.n%2 == 1 {
		return pgconn.CommandTag{}, io.ErrUnexpectedEOF
	}
	return tag, err
}

// While the database is away, uploads are refused with 503 and jobs wait. They work again as
// soon as it is back.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, pgtest.Options{Fast: true})
	d := server.Schema(t)
	migrate(t, d.URL())
	p := newProcess(t, d.URL())
	p.patience = 0
	content := text(2 * chunkSize)
	id, list := p.put(content)
	half := p.Stage(job.NewID())
	if _, err := half.Receive(t.Context(), "a", "", strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	server.Stop(t)
	isAway := func(what string, err error) {
		t.Helper()
		if job.CodeOf(err) != job.Unavailable {
			t.Errorf("%s while the database is away: %v", what, err)
		}
	}
	s := p.Stage(job.NewID())
	_, err := s.Receive(t.Context(), "a", "", strings.NewReader("x"))
	isAway("a receive", err)
	s.Discard()
	isAway("a commit", half.Commit(t.Context()))
	_, err = p.Store.Open(t.Context(), id, list[0])
	isAway("an open", err)
	_, err = p.Size(t.Context())
	isAway("a size", err)
	_, _, err = p.Fetch(t.Context(), id, list)
	if f := job.FaultOf(err); f.Code != "files_unavailable" || f.Class != job.Wait {
		t.Errorf("a fetch while the database is away: %v", err)
	}
	p.Remove(id)
	server.Restart(t)
	p.patience = defaultPatience
	if err := half.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	_, release := p.get(id, list, content)
	release()
}

// A full disk of the database is a refusal that says so, at once.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	p := newProcess(t, database(t).URL())
	s := p.Stage(job.NewID())
	calls := 0
	p.setBefore(func(sql string) error {
		if strings.HasPrefix(sql, "with f") {
			calls++
			return &pgconn.PgError{Code: diskFull}
		}
		return nil
	})
	if _, err := s.Receive(t.Context(), "a", "", strings.NewReader("x")); job.CodeOf(err) != job.NoSpace || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	s.Discard()
	if got := p.rows(); got != [2]int{} {
		t.Errorf("left are %v rows", got)
	}
}

// A job that is deleted while its files are fetched or read ends that, and leaves no copy.
func TestDeleteDuringFetch(t *testing.T) {
	t.Parallel()
	d := database(t)
	a, b := newProcess(t, d.URL()), newProcess(t, d.URL())
	content := text(4 * chunkSize)
	for _, way := range []string{"fetch", "read"} {
		id, list := a.put(content)
		a.chunkReads()
		a.setBefore(func(string) error {
			if a.chunks == 2 {
				b.Remove(id)
			}
			return nil
		})
		if way == "fetch" {
			_, _, err := a.Fetch(t.Context(), id, list)
			if f := job.FaultOf(err); f.Code != "files_changed" || f.Class != job.Final {
				t.Error(err)
			}
		} else {
			r, err := a.Store.Open(t.Context(), id, list[0])
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, r); !errors.Is(err, errRemoved) || n != chunkSize {
				t.Errorf("%d bytes were read, %v", n, err)
			}
		}
		a.setBefore(nil)
		if err := a.removeStale(t.Context()); err != nil {
			t.Error(err)
		}
		if got := a.cached(); len(got) != 0 {
			t.Errorf("copies are left: %v", got)
		}
	}
	if got := a.rows(); got != [2]int{} {
		t.Errorf("left are %v rows", got)
	}
}

// A chunk that arrives after the removal of its file is not stored: nobody would remove it.
func TestLateChunkIsNotStored(t *testing.T) {
	t.Parallel()
	d := database(t)
	a, b := newProcess(t, d.URL()), newProcess(t, d.URL())
	s := a.Stage(job.NewID())
	_, err := s.Receive(t.Context(), "a", "", &watched{Reader: iotest.OneByteReader(strings.NewReader("xy")), at: func(n int64) {
		if n == 1 {
			b.Remove(s.ID())
		}
	}})
	if job.CodeOf(err) != job.Unavailable {
		t.Errorf("it is accepted: %v", err)
	}
	if got := a.rows(); got != [2]int{} {
		t.Errorf("left are %v rows", got)
	}
	s.Discard()

	// The same while another process has begun the removal and not ended it.
	s = a.Stage(job.NewID())
	_, err = s.Receive(t.Context(), "a", "", &watched{Reader: iotest.OneByteReader(strings.NewReader("xy")), at: func(n int64) {
		if n == 1 {
			a.run("update files set state = 2")
		}
	}})
	if job.CodeOf(err) != job.Unavailable {
		t.Errorf("it is accepted: %v", err)
	}
	if got := a.rows(); got != [2]int{1, 0} {
		t.Errorf("%v rows", got)
	}
	s.Discard()
}

// What is damaged in the database is never given to an attempt.
func TestDamagedChunks(t *testing.T) {
	t.Parallel()
	p := newProcess(t, database(t).URL())
	for _, damage := range []string{
		"update file_chunks set data = set_byte(data, 7, 0) where n = 1",
		"update file_chunks set data = substr(data, 2) where n = 0",
		"delete from file_chunks where n = 1",
		"update files set size = size - 1",
	} {
		id, list := p.put(text(2*chunkSize), "b")
		p.run(damage)
		_, _, err := p.Fetch(t.Context(), id, list)
		if f := job.FaultOf(err); f.Code != "files_changed" || f.Class != job.Final {
			t.Errorf("%s: %v", damage, err)
		}
		p.Remove(id)
	}
}
