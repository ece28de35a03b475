package pgtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestSchemasAreApart(t *testing.T) {
	t.Parallel()
	InShort(t)
	s := Shared(t)
	if Shared(t) != s {
		t.Error("Shared started a second server")
	}
	one, two := s.Schema(t), s.Schema(t)
	run(t, one.Connect(t), "create table things (n int)")
	if _, err := two.Connect(t).Exec(t.Context(), "select * from things"); err == nil {
		t.Error("a schema sees the tables of another")
	}
	if text := show(t, one.Connect(t), "select current_schema"); text != one.Role() {
		t.Errorf("the schema is %s, want %s", text, one.Role())
	}
	if text := show(t, one.Connect(t), "select rolsuper::text from pg_roles where rolname = current_user"); text != "false" {
		t.Error("the role has special rights")
	}
}

func TestDatabaseIsItsOwn(t *testing.T) {
	t.Parallel()
	d := Shared(t).Database(t)
	if text := show(t, d.Connect(t), "select current_database()"); text != d.Role() {
		t.Errorf("the database is %s, want %s", text, d.Role())
	}
}

func TestServerSyncsUnlessFast(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		server *Server
		want   string
	}{{Shared(t), "off"}, {Start(t, Options{}), "on"}} {
		conn := tt.server.Schema(t).Connect(t)
		if text := show(t, conn, "show fsync"); text != tt.want {
			t.Errorf("fsync is %s, want %s", text, tt.want)
		}
		if text := show(t, conn, "show synchronous_commit"); text != "on" {
			t.Errorf("synchronous_commit is %s", text)
		}
	}
}

func TestServerListensOnLoopbackOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	if text := show(t, Shared(t).Schema(t).Connect(t), "show listen_addresses"); text != "" {
		t.Errorf("the server listens on %s", text)
	}
	s := Start(t, Options{TCP: true, Fast: true, Settings: map[string]string{"work_mem": "123kB"}})
	conn, err := pgx.Connect(t.Context(), s.Schema(t).NetworkURL(s.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if text := show(t, conn, "show listen_addresses"); text != "127.0.0.1" {
		t.Errorf("the server listens on %s", text)
	}
	if text := show(t, conn, "show work_mem"); text != "123kB" {
		t.Errorf("work_mem is %s", text)
	}
}

// What was committed is there after a stop and after a crash.
func TestDataOutlivesStopAndKill(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	d := s.Schema(t)
	conn := d.Connect(t)
	run(t, conn, "create table things (n int)")
	for i, end := range []func(testing.TB){s.Stop, s.Kill} {
		conn := d.Connect(t)
		run(t, conn, "insert into things values (1)")
		end(t)
		if err := conn.Ping(t.Context()); err == nil {
			t.Error("the connection outlives the server")
		}
		if _, err := pgx.Connect(t.Context(), d.URL()); err == nil {
			t.Error("the server accepts a connection after its end")
		}
		s.Restart(t)
		if n := show(t, d.Connect(t), "select count(*)::text from things"); n != []string{"1", "2"}[i] {
			t.Errorf("%s rows, want %d", n, i+1)
		}
	}
}

func TestKillBackendsKillsThoseOfOneRole(t *testing.T) {
	t.Parallel()
	s := Shared(t)
	one, two := s.Schema(t), s.Schema(t)
	killed, spared := one.Connect(t), two.Connect(t)
	if n := one.KillBackends(t); n != 1 {
		t.Errorf("%d killed, want 1", n)
	}
	if err := killed.Ping(t.Context()); err == nil {
		t.Error("the connection is still there")
	}
	if err := spared.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// A server goes away with its process, even when that is killed.
func TestServerEndsWithItsProcess(t *testing.T) {
	const variable = "PGTEST_CHILD"
	if os.Getenv(variable) != "" {
		t.Log("dir", Start(t, Options{Fast: true}).dir)
		_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed
	}
	t.Parallel()
	installed(t)
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), variable+"=1")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	dir := ""
	for part := make([]byte, 1<<10); dir == ""; {
		n, err := output.Read(part)
		if err != nil {
			t.Fatalf("%v\n%s", err, said.String())
		}
		said.Write(part[:n])
		if _, after, found := strings.Cut(said.String(), "dir "); found && strings.Contains(after, "\n") {
			dir, _, _ = strings.Cut(after, "\n")
		}
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(time.Minute); ; {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("%s is still there", dir)
		}
	}
}

func BenchmarkSchema(b *testing.B) {
	s := Shared(b)
	for b.Loop() {
		s.Exec(b, "create role bench login; create schema bench authorization bench; drop owned by bench cascade; drop role bench")
	}
}

func BenchmarkDatabase(b *testing.B) {
	s := Shared(b)
	for b.Loop() {
		s.Exec(b, "create database bench")
		s.Exec(b, "drop database bench")
	}
}

func run(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func show(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	var text string
	if err := conn.QueryRow(t.Context(), sql).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// The next test finds the first rows, and nothing that the last one has left or still does.
func TestPoolLendsSchemasWithTheirFirstRows(t *testing.T) {
	t.Parallel()
	InShort(t)
	p := &Pool{Prepare: func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `create table counted (n int generated always as identity primary key, what text unique);
			create table first (n int); insert into first values (7); create table "In Order" (n int)`)
		return err
	}}
	var late *pgx.ConnConfig
	names := map[string]bool{}
	for range 3 {
		t.Run("", func(t *testing.T) {
			d := p.Schema(t)
			names[d.Role()] = true
			conn := d.Connect(t)
			const rows = `select format('%s %s %s', (select count(*) from counted), (select string_agg(n::text, ',') from first), (select count(*) from "In Order"))`
			if text := show(t, conn, rows); text != "0 7 0" {
				t.Errorf("the rows are %s, want 0 7 0", text)
			}
			if text := show(t, conn, "insert into counted (what) values ('x') returning n::text"); text != "1" {
				t.Errorf("the first number is %s", text)
			}
			run(t, conn, `update first set n = 8; insert into "In Order" values (1)`)
			if late != nil {
				if _, err := pgx.ConnectConfig(t.Context(), late); err == nil {
					t.Error("the test before can still connect")
				}
			}
			late = conn.Config()
		})
	}
	if len(names) != 3 || len(p.free) != 1 {
		t.Errorf("%d names and %d free schemas, want 3 and 1", len(names), len(p.free))
	}
}
