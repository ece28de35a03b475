package server

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// nginx, configured as for compose, sends requests to two servers on one database, and goes on
// when one of them is gone.
func TestProxyOfTwoServers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a database and nginx")
	}
	t.Parallel()
	db := pgtest.Shared(t).Schema(t)
	one, two := serveOn(t, db.URL(), nil), serveOn(t, db.URL(), nil)
	proxy := composedNginx(t, map[string]string{"meanwhile-1:8080": strings.TrimPrefix(one.URL(), "http://"), "meanwhile-2:8080": strings.TrimPrefix(two.URL(), "http://")})
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, proxy+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Prefer", "wait=20")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	submit := func(when string) {
		t.Helper()
		for range 4 { // to each server
			if status, text := ask("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"hello"}}`); status != 200 || !strings.Contains(text, `"succeeded"`) {
				t.Errorf("%s: %d %s", when, status, text)
			}
		}
	}
	submit("with two servers")
	for _, path := range []string{"/metrics", "/debug/pprof/"} {
		if status, _ := ask("GET", path, ""); status != 404 {
			t.Errorf("%s is answered with %d", path, status)
		}
	}
	one.quit()
	submit("with one server")
}

// composedNginx starts nginx with deploy/compose/nginx.conf, and returns its URL.
func composedNginx(t *testing.T, servers map[string]string) string {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		if path = "/usr/sbin/nginx"; !fileExists(path) {
			path = program(t, "nginx")
		}
	}
	text, err := os.ReadFile("../../deploy/compose/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir, addr, conf := t.TempDir(), freeAddress(t), string(text)
	changes := map[string]string{
		"listen 8080;": "listen " + addr + ";", "/dev/stdout": filepath.Join(dir, "access.log"),
		"http {\n": fmt.Sprintf("http {\nclient_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;\n", dir),
	}
	for from, to := range servers {
		changes[from] = to
	}
	for from, to := range changes {
		if !strings.Contains(conf, from) {
			t.Fatalf("nginx.conf lacks %q", from)
		}
		conf = strings.ReplaceAll(conf, from, to)
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte("daemon off; master_process off; error_log stderr notice; pid "+dir+"/pid;\n"+conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-p", dir, "-e", "stderr", "-c", file)
	cmd.WaitDelay = time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lineWith(t, stderr, "event method") // it listens
	return "http://" + addr
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
