package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/cutproxy"
)

// serverProcess is a server in its own process: this test binary, run as the program. A
// proxy gives it an address that stays the same after a restart.
type serverProcess struct {
	proxy        *cutproxy.Proxy
	config, data string // config is a file, or ""
	cmd          *exec.Cmd
}

func newServerProcess(t *testing.T) *serverProcess {
	k := &serverProcess{proxy: cutproxy.New(t), data: t.TempDir()}
	t.Cleanup(k.kill)
	return k
}

func (k *serverProcess) url() string { return k.proxy.URL() }

// start starts the server and returns when it is ready.
func (k *serverProcess) start(t *testing.T) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k.cmd = exec.Command(program, "serve", "--listen", "127.0.0.1:0", "--data", k.data, "--log-format", "json")
	if k.config != "" {
		k.cmd.Args = append(k.cmd.Args, "--config", k.config)
	}
	log, err := k.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if _, rest, ready := strings.Cut(lines.Text(), `"msg":"ready","url":"http://`); ready {
			at, _, _ := strings.Cut(rest, `"`)
			k.proxy.SetTarget(at)
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return
		}
	}
	t.Fatal("the server is not ready")
}

// kill kills the server with SIGKILL.
func (k *serverProcess) kill() {
	if k.cmd != nil {
		_ = k.cmd.Process.Kill()
		_ = k.cmd.Wait()
		k.cmd = nil
		k.proxy.SetTarget("")
	}
}

// hangingModel is a model whose first answer stops in the middle. Later answers are
// complete.
type hangingModel struct{ requests atomic.Int32 }

func (m *hangingModel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	write := func(words, reason string) {
		fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q},\"finish_reason\":%s}]}\n\n", words, reason)
		_ = http.NewResponseController(w).Flush()
	}
	write("The work takes its time, ", "null")
	if m.requests.Add(1) == 1 {
		<-r.Context().Done()
		return
	}
	write("and comes to its end.", `"stop"`)
}

// withModel configures the next start with this model.
func (k *serverProcess) withModel(t *testing.T, model http.Handler) {
	t.Helper()
	upstream := httptest.NewServer(model)
	t.Cleanup(upstream.Close)
	k.config = filepath.Join(t.TempDir(), "meanwhile.yaml")
	if err := os.WriteFile(k.config, fmt.Appendf(nil, "models: [{name: m, base_url: %q}]\n", upstream.URL+"/v1"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWatchSurvivesServerKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two server processes")
	}
	t.Parallel()
	k := newServerProcess(t)
	k.withModel(t, &hangingModel{})
	k.start(t)
	url := k.url()

	submitted := newTestEnv(url)
	if code := submitted.run(t, "submit", "chat", "how?"); code != exitOK {
		t.Fatalf("exit status %d: %s", code, &submitted.err)
	}
	id := strings.TrimSpace(submitted.out.String())

	all := newTestEnv(url)
	outReader, outWriter := io.Pipe()
	all.Out = outWriter
	ended := make(chan int, 1)
	go func() {
		ended <- Run(t.Context(), &all.Env, []string{"watch", id, "--follow"})
		outWriter.Close()
	}()
	var text bytes.Buffer
	if _, err := io.CopyN(&text, outReader, 20); err != nil {
		t.Fatal(err)
	}
	k.kill()
	k.start(t)
	if _, err := io.Copy(&text, outReader); err != nil {
		t.Fatal(err)
	}
	if code := <-ended; code != exitOK {
		t.Fatalf("exit status %d: %s", code, &all.err)
	}
	all.wantErr(t, "The server is unavailable", "The server is available again.", "--- attempt 2 begins")

	last := newTestEnv(url)
	if code := last.run(t, "watch", id); code != exitOK || !strings.HasPrefix(last.out.String(), "The work") {
		t.Errorf("exit status %d: %s", code, &last.out)
	}
	if first, _, _ := strings.Cut(text.String(), "\n"); text.String() != first+"\n"+last.out.String() || !strings.HasPrefix(last.out.String(), first) {
		t.Errorf("all attempts printed\n%s, the last\n%s", &text, &last.out)
	}
}
