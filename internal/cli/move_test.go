package cli

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/server"
)

// stoppedServer returns the data directory of a server that has run one job.
func stoppedServer(t *testing.T) string {
	t.Helper()
	cfg := config.Default()
	cfg.Listen, cfg.Data = "127.0.0.1:0", t.TempDir()
	url := startServer(t, cfg)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	if code := newTestEnv(url).run(t, "submit", "sim", `{"echo": "moved"}`, "--watch"); code != exitOK {
		t.Fatal(code)
	}
	copied := filepath.Join(t.TempDir(), "stopped")
	if _, err := server.Backup(t.Context(), cfg.Data, copied, func(_, _ int64) {}); err != nil {
		t.Fatal(err)
	}
	return copied
}

func TestMoveSaysWhatItMoved(t *testing.T) {
	t.Parallel()
	data := stoppedServer(t)
	url := pgtest.Shared(t).Schema(t).URL()
	m := newTestEnv("").terminal()
	if code := m.run(t, "move", "--from", "sqlite:"+data, "--to", url); code != exitOK {
		t.Fatalf("exit status %d: %s%s", code, &m.out, &m.err)
	}
	for _, want := range []string{"MOVED ", "ended jobs", "has the same rows and checksums; 1 jobs in 0s\n", "no server uses it any more\n"} {
		if !strings.Contains(m.out.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, &m.out)
		}
	}

	again := newTestEnv("")
	again.Environ = append(again.Environ, "MEANWHILE_DATABASE="+url, "MEANWHILE_DATA="+data)
	if code := again.run(t, "move"); code != exitError {
		t.Errorf("exit status %d: %s", code, &again.out)
	}
	again.wantErr(t, "was moved to the database", "delete "+filepath.Join(data, "moved"))

	check := newTestEnv("")
	if code := check.run(t, "check", "--database", url); code != exitOK || !strings.HasSuffix(check.out.String(), " is intact\n") {
		t.Errorf("exit status %d: %s%s", code, &check.out, &check.err)
	}
}

func TestMoveNeedsSourceAndDatabase(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"move": "name the database with --to",
		"move --from /var/lib/meanwhile --to postgres://u@h/d": "name a data directory as sqlite:DIR",
		"move --from sqlite: --to postgres://u@h/d":            "name a data directory as sqlite:DIR",
		"move --from sqlite:/none --to mysql://u@h/d":          "must be the URL of a PostgreSQL database",
		"check --data d --database postgres://u@h/d":           "give one of them",
	} {
		s := newTestEnv("")
		if code := s.run(t, strings.Fields(args)...); code != exitUsage {
			t.Errorf("%s: exit status %d", args, code)
		}
		s.wantErr(t, want)
	}
	none := newTestEnv("")
	if code := none.run(t, "move", "--from", "sqlite:"+t.TempDir(), "--to", "postgres://u@h/d"); code != exitError {
		t.Errorf("exit status %d", code)
	}
	none.wantErr(t, "is no data directory of a server")
}

// The meter shows the rate of this call, not of those before it.
func TestMoveMeter(t *testing.T) {
	t.Parallel()
	for _, terminal := range []bool{true, false} {
		s := newTestEnv("")
		s.ErrTerminal = terminal
		at := now
		s.Now = func() time.Time { return at }
		m := &moveMeter{env: &s.Env, began: now}
		m.show(server.MoveReport{Jobs: 500, AllJobs: 2000, Bytes: 1 << 20})
		at = at.Add(2 * time.Minute)
		m.show(server.MoveReport{Jobs: 1700, AllJobs: 2000, Bytes: 121 << 20})
		m.show(server.MoveReport{Jobs: 1701, AllJobs: 2000, Bytes: 121 << 20})
		at = at.Add(2 * time.Minute)
		m.show(server.MoveReport{Table: "output"})
		m.clear()
		want := "1700 of 2000 jobs, 121.0 MiB, 10 jobs/s, 1.0 MiB/s\ncomparing the table output\n"
		if terminal {
			want = "\r\x1b[K500 of 2000 jobs, 1.0 MiB\r\x1b[K1700 of 2000 jobs, 121.0 MiB, 10 jobs/s, 1.0 MiB/s\r\x1b[Kcomparing the table output\r\x1b[K"
		}
		if got := s.err.String(); got != want {
			t.Errorf("terminal %v: %q, want %q", terminal, got, want)
		}
	}
}

func TestMovedReport(t *testing.T) {
	t.Parallel()
	s := newTestEnv("")
	moved := &server.Moved{Running: 2}
	moved.Jobs, moved.Bytes = 3000, 3<<20
	moved.Sums = map[string]server.MovedSum{"ended": {Rows: 2990, Bytes: 2 << 20}, "jobs": {Rows: 10, Bytes: 1000}}
	moved.Lost = []job.ID{{1}}
	if err := printMoved(&s.Env, "data", "the database jobs", moved, 3*time.Second); err != nil {
		t.Fatal(err)
	}
	want := `MOVED            ROWS  BYTES
unfinished jobs  10    1000 B
ended jobs       2990  2.0 MiB
2 jobs ran when the server stopped: they wait again
the database jobs has the same rows and checksums; 3000 jobs in 3s, 1000 jobs/s, 1.0 MiB/s
start servers with this database; data is kept, and no server uses it any more
`
	if s.out.String() != want {
		t.Errorf("it prints\n%s, want\n%s", &s.out, want)
	}
	s.wantErr(t, "has lost a file in data")
}
