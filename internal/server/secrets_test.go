package server

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// safeBuffer collects what several goroutines write.
type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.text.Bytes())
}

// secretRun is a server with planted secrets, and everything that it writes.
type secretRun struct {
	*testServer
	secrets map[string]string // by what they are
	log     safeBuffer        // at debug level
	traces  safeBuffer        // what a collector of traces receives
	answers safeBuffer        // of all requests
}

// answer keeps the answer of a request.
func (r *secretRun) answer(method, path, body string, headers ...string) map[string]any {
	r.t.Helper()
	status, answer := r.call(method, path, body, headers...)
	fmt.Fprintln(&r.answers, status, answer)
	return answer
}

// check fails for every secret that a text contains.
func (r *secretRun) check(where string, text []byte) {
	r.t.Helper()
	for what, secret := range r.secrets {
		if secret != "" && bytes.Contains(text, []byte(secret)) {
			r.t.Errorf("%s: it has %s", where, what)
		}
	}
}

// checkDir checks all files in a directory.
func (r *secretRun) checkDir(where, dir string) {
	r.t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		r.check(where+": "+filepath.Base(path), text)
		return err
	})
	if err != nil || files == 0 {
		r.t.Errorf("%s: %d files, %v", where, files, err)
	}
}

// showAll is a command that shows everything that it can see of the server.
const showAll = `env; cat /proc/self/cmdline; cat /proc/$PPID/environ /proc/$PPID/cmdline 2>&1; ls -l /proc/$PPID/fd 2>&1; true`

// rudeUpstream is a model that refuses each call, and shows the key that came with it.
func rudeUpstream(t *testing.T) string {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":{"message":"Incorrect API key provided: %s, %s, %s"}}`,
			strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), r.Header.Get("X-Team"), r.URL.RawQuery)
	}))
	t.Cleanup(upstream.Close)
	return upstream.URL + "/v1"
}

func startWithSecrets(t *testing.T) *secretRun {
	r := &secretRun{secrets: map[string]string{
		"an API key":                     "sk-planted-0123456789abcdef",
		"the secret in a header":         "header-planted-0123456789",
		"the secret in a query":          "query-planted-0123456789",
		"a key of the encryption":        sealed.NewKey(),
		"the older key of an encryption": sealed.NewKey(),
	}}
	for name, what := range map[string]string{"PLANTED_API_KEY": "an API key", "MEANWHILE_ENCRYPTION_KEYS": "a key of the encryption"} {
		t.Setenv(name, r.secrets[what])
	}
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { _, _ = io.Copy(&r.traces, q.Body) }))
	t.Cleanup(collector.Close)
	log := slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	was := testLog
	testLog = func(*testing.T) *slog.Logger { return log }
	defer func() { testLog = was }()
	r.testServer = serve(t, func(c *config.Config) {
		c.Models = append(c.Models, config.Model{
			Name: "rude", BaseURL: rudeUpstream(t), APIKeyEnv: "PLANTED_API_KEY", APIKey: r.secrets["an API key"],
			Headers: map[string]string{"X-Team": r.secrets["the secret in a header"]}, Query: map[string]string{"code": r.secrets["the secret in a query"]},
			Secrets: []string{r.secrets["the secret in a header"], r.secrets["the secret in a query"]},
		})
		c.Encryption.Keys = []string{r.secrets["a key of the encryption"], r.secrets["the older key of an encryption"]}
		c.Tracing = config.Tracing{Endpoint: collector.URL, Ratio: 1}
		show := config.Defaults(config.Process)
		show.Process.Command = []string{"/bin/sh", "-c", showAll}
		c.Queues["show"] = show
		allowApp(c)
	})
	if u, err := url.Parse(r.cfg.Database); err == nil {
		r.secrets["the database's password"], _ = u.User.Password()
	}
	return r
}

// Nothing that a server writes, sends or shows has a secret of its configuration or a token.
func TestSecretsAreNowhere(t *testing.T) {
	r := startWithSecrets(t)
	r.answer("POST", "/v1/jobs", `{"queue":"chat","input":{"model":"rude","messages":[{"role":"user","content":"hello"}]}}`, "Prefer", "wait=60")
	shown := r.answer("POST", "/v1/jobs", `{"queue":"show","input":{}}`, "Prefer", "wait=60")
	if shown["status"] != "succeeded" && shown["status"] != "failed" {
		t.Errorf("the command is %v", shown)
	}
	r.answer("GET", "/v1/jobs/"+fmt.Sprint(shown["id"])+"/output", "")
	id, watch := r.watchURL(`{"echo":"hello"}`)
	_, token, _ := strings.Cut(watch, "?")
	if _, text := r.stranger("GET", watch); !strings.Contains(text, id) {
		t.Errorf("the token opens %s", text)
	}
	broken := r.send("GET", strings.TrimPrefix(watch, r.URL())+"x", "", "Origin", "https://app.example")
	text, _ := io.ReadAll(broken.Body)
	_ = broken.Body.Close()
	_, _ = r.answers.Write(text)
	_, metrics := r.text("GET", "/metrics", "")
	if r.cfg.Database == "" {
		to := filepath.Join(t.TempDir(), "copy")
		if _, err := Backup(t.Context(), r.cfg.Data, to, func(_, _ int64) {}); err != nil {
			t.Error(err)
		}
		r.checkDir("a backup", to)
	}
	r.quit()

	// The token was handed out in an answer, and may be nowhere else.
	r.check("the answers", r.answers.bytes())
	r.secrets["a watch token"] = strings.TrimPrefix(token, "token=")
	if len(r.secrets["a watch token"]) < 20 {
		t.Errorf("the address has no token: %s", watch)
	}
	r.check("the log", r.log.bytes())
	r.check("the traces", r.traces.bytes())
	r.check("the metrics", []byte(metrics))
	r.checkDir("the data directory", r.cfg.Data)
	for what, text := range map[string][]byte{"log": r.log.bytes(), "traces": r.traces.bytes(), "answers": r.answers.bytes()} {
		if len(text) < 100 {
			t.Errorf("the test has only %d bytes of the %s", len(text), what)
		}
	}
}

// The errors of a certificate do not show its key.
func TestKeyOfTheCertificateIsNotShown(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(2)
	key, err := os.ReadFile(a.files.Key)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(key), "\n")
	for what, text := range map[string]string{"without its end": strings.Join(lines[:2], "\n"), "without its marks": lines[1], "in the place of the certificate": string(key)} {
		if err := os.WriteFile(a.files.Key, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files := a.files
		if what == "in the place of the certificate" {
			files.Cert = files.Key
		}
		if _, err := openCertificate(files, nil); err == nil || strings.Contains(err.Error(), lines[1][:16]) {
			t.Errorf("a key %s: %v", what, err)
		}
	}
}
