package pgtest

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Database is what a test has of a server: a role without special rights, whose tables nobody
// else sees.
type Database struct {
	server *Server
	role   string
	name   string // of the database
}

// Schema makes a schema, and a role of the same name that uses it without a setting of its own:
// the server's search_path begins with the role's name. It is dropped when the test ends. This
// takes a few milliseconds.
func (s *Server) Schema(t testing.TB) Database {
	t.Helper()
	d := Database{server: s, role: s.name(), name: "postgres"}
	s.Exec(t, fmt.Sprintf("create role %[1]s login; create schema %[1]s authorization %[1]s", d.role))
	t.Cleanup(func() {
		d.logErrors(t)
		d.drop(t, fmt.Sprintf("drop owned by %[1]s cascade; drop role %[1]s", d.role))
	})
	return d
}

// Database makes a database and a role that owns it. It is dropped when the test ends. This
// takes longer than Schema, and is for what concerns a whole database: poolers, settings,
// advisory locks that must not meet others.
func (s *Server) Database(t testing.TB) Database {
	t.Helper()
	name := s.name()
	d := Database{server: s, role: name, name: name}
	s.Exec(t, fmt.Sprintf("create role %s login", name))
	s.Exec(t, fmt.Sprintf("create database %[1]s owner %[1]s", name))
	t.Cleanup(func() {
		d.logErrors(t)
		d.drop(t, fmt.Sprintf("drop database %s (force)", name))
		d.drop(t, fmt.Sprintf("drop role %s", name))
	})
	return d
}

func (s *Server) name() string { return "test" + strconv.FormatInt(s.names.Add(1), 10) }

// drop ends what a test has left open and runs the statement. A server that was stopped by the
// test is removed with all it has.
func (d Database) drop(t testing.TB, sql string) {
	t.Helper()
	d.server.mu.Lock()
	running := d.server.running
	d.server.mu.Unlock()
	if !running {
		return
	}
	d.KillBackends(t)
	if err := d.server.exec(sql); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}

// URL returns the postgres:// URL of the database, over the Unix socket.
func (d Database) URL() string { return d.server.url(d.role, d.name) }

// NetworkURL returns the postgres:// URL of the database, over TCP at addr: Server.Addr, or the
// host:port of a proxy in front of it.
func (d Database) NetworkURL(addr string) string {
	return (&url.URL{Scheme: "postgres", User: url.User(d.role), Host: addr, Path: "/" + d.name, RawQuery: "sslmode=disable"}).String()
}

// Role returns the name of the role, which is also the name of the schema or the database.
func (d Database) Role() string { return d.role }

// Connect returns a connection that is closed when the test ends.
func (d Database) Connect(t testing.TB) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// KillBackends ends every connection of the role, as an administrator or a failover does, and
// waits until the last one is gone. It returns their number.
func (d Database) KillBackends(t testing.TB) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	killed := 0
	err := d.server.asAdmin(ctx, func(conn *pgx.Conn) error {
		// The function waits for each one, so a second pass finds only what has connected since.
		const kill = "select count(*) filter (where pg_terminate_backend(pid, 10000)) from pg_stat_activity where usename = $1"
		return conn.QueryRow(ctx, kill, d.role).Scan(&killed)
	})
	if err != nil {
		t.Fatal(err)
	}
	return killed
}

// logErrors logs what the server has said about the role, when the test has failed.
func (d Database) logErrors(t testing.TB) {
	if !t.Failed() {
		return
	}
	var of []string
	for line := range strings.Lines(d.server.tail(1 << 20)) {
		if strings.Contains(line, "] "+d.role+" ") {
			of = append(of, line)
		}
	}
	if len(of) > 0 {
		t.Logf("PostgreSQL said:\n%s", strings.Join(of, ""))
	}
}
