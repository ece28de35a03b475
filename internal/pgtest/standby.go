package pgtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Standby makes a copy of the server with pg_basebackup and starts it as a standby that follows by
// streaming replication, until the test ends. It can be read. Its databases, roles and schemas are
// those of the server. A test on a machine without pg_basebackup is skipped; in CI it fails.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	programs := installed(t)
	if !hasProgram(programs, "pg_basebackup") {
		const how = "the test runs pg_basebackup, which is not among PostgreSQL's programs: sudo apt-get install postgresql-client"
		if os.Getenv("MEANWHILE_CI") != "" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	standby, err := s.follow(programs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.remove)
	return standby
}

func (s *Server) follow(programs string) (_ *Server, err error) {
	by, err := clusterOwner()
	if err != nil {
		return nil, err
	}
	standby := &Server{port: s.port}
	if standby.dir, err = by.tempDir(); err != nil {
		return nil, err
	}
	if standby.watcher, err = watch(by, programs, standby.dir); err != nil {
		return nil, err
	}
	cmd := by.command(standby.dir, filepath.Join(programs, "pg_basebackup"),
		"-D", standby.Dir(), "-h", s.dir, "-p", fmt.Sprint(s.port), "-U", superuser, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	if said, copyErr := cmd.CombinedOutput(); copyErr != nil {
		err = fmt.Errorf("pgtest: pg_basebackup: %w\n%s", copyErr, said)
	}
	if err == nil {
		err = standby.configure(Options{})
	}
	if err == nil {
		err = standby.launch()
	}
	if err != nil {
		standby.watcher.remove()
		return nil, err
	}
	return standby, nil
}

// URLBefore returns the postgres:// URL of the database with the hosts of the server and of a
// standby, in this order, and with a further parameter, such as target_session_attrs=read-write.
func (d Database) URLBefore(standby *Server, parameter string) string {
	return fmt.Sprintf("postgres://%s@/%s?host=%s,%s&port=%d,%d&%s", d.role, d.name, d.server.dir, standby.dir, d.server.port, standby.port, parameter)
}

// Promote makes the standby a server of its own, and returns when it takes writes.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.Exec(t, "select pg_promote(true, 60)")
}

// AwaitStandby waits until a standby has all that the server has committed.
func (s *Server) AwaitStandby(t testing.TB, standby *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	ask := func(of *Server, sql string, args ...any) (answer string) {
		conn, err := pgx.Connect(ctx, of.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(ctx) }()
		if err := conn.QueryRow(ctx, sql, args...).Scan(&answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	at := ask(s, "select pg_current_wal_flush_lsn()::text")
	for ask(standby, "select (pg_last_wal_replay_lsn() >= $1::pg_lsn)::text", at) != "true" {
		time.Sleep(10 * time.Millisecond)
	}
}
