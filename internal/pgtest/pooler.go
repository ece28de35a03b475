package pgtest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Pooler starts PgBouncer in transaction mode in front of the database, until the test ends, and
// returns the postgres:// URL of the database through it. It knows no prepared statements. A test
// on a machine without PgBouncer is skipped; in CI it fails.
func (d Database) Pooler(t testing.TB) string {
	t.Helper()
	program := "/usr/sbin/pgbouncer" // Debian's, in nobody's PATH
	if found, err := exec.LookPath("pgbouncer"); err == nil {
		program = found
	}
	if _, err := os.Stat(program); err != nil {
		const how = "the test runs PgBouncer, which is not installed: sudo apt-get install pgbouncer"
		if os.Getenv("MEANWHILE_CI") != "" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	by, err := clusterOwner()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := by.tempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	users, settings := filepath.Join(dir, "users"), filepath.Join(dir, "ini")
	text := fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
unix_socket_dir = %s
listen_port = 6432
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = 3
ignore_startup_parameters = extra_float_digits
`, d.server.dir, d.server.port, dir, users)
	for path, content := range map[string]string{users: fmt.Sprintf("%q \"\"\n", d.role), settings: text} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var said strings.Builder
	cmd := by.command(dir, program, settings)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("PgBouncer said:\n%s", said.String())
		}
	})
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", filepath.Join(dir, ".s.PGSQL.6432")); err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("PgBouncer does not start")
		}
	}
	query := url.Values{"host": {dir}, "port": {"6432"}}
	return (&url.URL{Scheme: "postgres", User: url.User(d.role), Path: "/" + d.name, RawQuery: query.Encode()}).String()
}
