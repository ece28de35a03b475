// Package pgtest runs private PostgreSQL servers for tests, from the programs that are
// installed on the machine. A server keeps its data in a temporary directory of its own and
// never touches another server's. Shared is one server for all tests of a process and is fast,
// because it does not sync; Start is a server for one test that may stop or kill it.
//
// A test takes a Database from the server: a schema and a role of its own, without special
// rights. A watcher process removes each server when the test process ends, however it ends.
package pgtest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options says how a server runs. The zero value is a server that syncs, on a Unix socket.
type Options struct {
	// TCP lets the server listen on a free port of 127.0.0.1, besides its Unix socket.
	TCP bool
	// Fast turns off fsync and full page writes. A killed server then still keeps what it
	// committed, because the pages are in the memory of the system.
	Fast bool
	// Settings are further lines of postgresql.conf.
	Settings map[string]string
}

// startTimeout bounds the start of a server, a recovery included.
const startTimeout = 2 * time.Minute

// Server is a private PostgreSQL server.
type Server struct {
	dir   string // holds the data, the socket and the log; set once
	port  int    // set once
	tcp   bool   // set once
	names atomic.Int64

	mu sync.Mutex
	// guarded by mu
	watcher *watcher
	running bool

	admins admins
}

var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared returns the server that all tests of this process share. It does not sync. It starts
// at the first call and is removed after the process has ended. With -short the test is skipped,
// unless it has called InShort.
func Shared(t testing.TB) *Server {
	t.Helper()
	skipShort(t)
	programs := installed(t)
	shared.once.Do(func() { shared.server, shared.err = start(programs, Options{Fast: true}) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// Start starts a server that is removed when the test ends. With -short the test is skipped,
// unless it has called InShort.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	skipShort(t)
	s, err := start(installed(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	return s
}

// Dir returns the directory of the server's data.
func (s *Server) Dir() string { return filepath.Join(s.dir, "data") }

// Addr returns the host:port on which the server listens; only with Options.TCP.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Socket returns the path of the server's Unix socket, as a target for a proxy.
func (s *Server) Socket() string { return filepath.Join(s.dir, ".s.PGSQL."+strconv.Itoa(s.port)) }

// URL returns the postgres:// URL of the superuser, over the Unix socket.
func (s *Server) URL() string { return s.url(superuser, "postgres") }

func (s *Server) url(role, database string) string {
	query := url.Values{"host": {s.dir}, "port": {strconv.Itoa(s.port)}}
	return (&url.URL{Scheme: "postgres", User: url.User(role), Path: "/" + database, RawQuery: query.Encode()}).String()
}

// Exec runs statements as the superuser.
func (s *Server) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if err := s.exec(sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// exec runs statements as the superuser.
func (s *Server) exec(sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return s.asAdmin(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
}

// admins are idle connections of the superuser. A new connection takes longer than most of what
// tests do with it.
type admins struct {
	mu   sync.Mutex
	idle []*pgx.Conn // guarded by mu
}

// take returns an idle connection, or nil.
func (a *admins) take() *pgx.Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	last := len(a.idle) - 1
	if last < 0 {
		return nil
	}
	conn := a.idle[last]
	a.idle = a.idle[:last]
	return conn
}

func (a *admins) put(conn *pgx.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.idle = append(a.idle, conn)
}

// asAdmin calls f with a connection of the superuser. One that has failed is not used again.
func (s *Server) asAdmin(ctx context.Context, f func(*pgx.Conn) error) error {
	conn := s.admins.take()
	if conn == nil {
		var err error
		if conn, err = pgx.Connect(ctx, s.URL()); err != nil {
			return err
		}
	}
	err := f(conn)
	if err != nil {
		_ = conn.Close(ctx)
		return err
	}
	s.admins.put(conn)
	return nil
}

// closeAdmins closes the idle connections, before the server is stopped.
func (s *Server) closeAdmins() {
	for conn := s.admins.take(); conn != nil; conn = s.admins.take() {
		_ = conn.Close(context.Background())
	}
}

// Stop stops the server as an operator would: it ends every connection and writes a checkpoint.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.stop(t, "INT")
}

// Kill kills the server, which leaves its data as a crash does.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.stop(t, "KILL")
}

func (s *Server) stop(t testing.TB, signal string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		t.Fatal("pgtest: the server does not run")
	}
	s.running = false
	s.closeAdmins()
	if err := s.watcher.stop(signal); err != nil {
		t.Fatal(err)
	}
}

// Restart starts the server again after Stop or Kill, on the same data, socket and port. It
// returns once the server accepts connections.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running {
		t.Fatal("pgtest: the server runs already")
	}
	if err := s.launch(); err != nil {
		t.Fatal(err)
	}
}

// launch starts the server and waits until it accepts connections. Callers hold mu, or are the
// only ones that have the server.
func (s *Server) launch() error {
	for deadline := time.Now().Add(startTimeout); ; {
		if err := s.watcher.start(); err != nil {
			return err
		}
		ready := s.awaitReady(deadline)
		if ready == nil {
			s.running = true
			return nil
		}
		// After a kill, the memory of the old server is in use until its last process is gone.
		if !strings.Contains(s.tail(4<<10), "shared memory block") || time.Now().After(deadline) {
			return fmt.Errorf("pgtest: PostgreSQL does not start: %w\n%s", ready, s.tail(4<<10))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *Server) awaitReady(deadline time.Time) error {
	for {
		exited := s.watcher.hasExited()
		err := s.exec("select 1")
		if err == nil || exited || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// tail returns the last bytes of the server's log.
func (s *Server) tail(bytes int) string {
	data, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-bytes):])
}

func (s *Server) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
	s.closeAdmins()
	s.watcher.remove()
}

// start makes a cluster and starts a server on it.
func start(programs string, o Options) (*Server, error) {
	owner, err := clusterOwner()
	if err != nil {
		return nil, err
	}
	s := &Server{port: 5432, tcp: o.TCP}
	if s.dir, err = owner.tempDir(); err != nil {
		return nil, err
	}
	if o.TCP {
		if s.port, err = freePort(); err != nil {
			return nil, err
		}
	}
	if s.watcher, err = watch(owner, programs, s.dir); err != nil {
		return nil, err
	}
	err = initialise(owner, programs, s.Dir())
	if err == nil {
		err = s.configure(o)
	}
	if err == nil {
		err = s.launch()
	}
	if err != nil {
		s.watcher.remove()
		return nil, err
	}
	return s, nil
}

// configure appends the settings to postgresql.conf.
func (s *Server) configure(o Options) error {
	settings := map[string]string{
		"port": strconv.Itoa(s.port), "unix_socket_directories": s.dir, "listen_addresses": "",
		"max_connections": "300", "shared_buffers": "64MB", "log_line_prefix": "%m [%p] %u ", "timezone": "UTC",
	}
	if o.TCP {
		settings["listen_addresses"] = "127.0.0.1"
	}
	if o.Fast {
		settings["fsync"], settings["full_page_writes"] = "off", "off"
	}
	maps.Copy(settings, o.Settings)
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&lines, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	f, err := os.OpenFile(filepath.Join(s.Dir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.WriteString(lines.String())
	return err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}
