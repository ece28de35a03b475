package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

const lowLimitVariable = "MEANWHILE_TEST_LOW_LIMIT"

// serveWithFewFiles is the child process of TestIdleSocketsLeaveDescriptorsForWork: a server
// that may open 120 files. It ends with its standard input.
func serveWithFewFiles(t *testing.T) {
	// The hard limit stays, so that the test's own clean-up can open files.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 120, Max: 120}); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Listen, cfg.Data, cfg.ShutdownGrace = "127.0.0.1:0", t.TempDir(), 0
	q := config.Defaults(config.Process)
	q.Concurrency, q.Process.Command, q.Process.Env, q.MaxAttempts = 4, []string{"cat"}, []string{"PATH"}, 1
	cfg.Queues["cat"] = q
	ctx, stop := context.WithCancel(t.Context())
	s, err := Open(ctx, cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err == nil {
		err = s.start(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("url=" + s.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	stop()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}

// 200 idle sockets take the descriptors neither of other clients nor of commands, and the
// log says so.
func TestIdleSocketsLeaveDescriptorsForWork(t *testing.T) {
	if os.Getenv(lowLimitVariable) != "" {
		serveWithFewFiles(t)
		return
	}
	if testing.Short() {
		t.Skip("it starts another process")
	}
	t.Parallel()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestIdleSocketsLeaveDescriptorsForWork$", "-test.v")
	child.Env = append(os.Environ(), lowLimitVariable+"=1")
	log := &lockedBuffer{}
	child.Stderr = log
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = child.Wait() }()
	url := ""
	lines := bufio.NewScanner(out)
	for url == "" && lines.Scan() {
		_, url, _ = strings.Cut(lines.Text(), "url=")
	}
	if url == "" {
		t.Fatalf("the server did not start: %s", log)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	for i := range 200 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatalf("socket %d: %v", i, err)
		}
		defer conn.Close()
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	for i := range 10 {
		req, _ := http.NewRequest("POST", url+"/v1/jobs", strings.NewReader(`{"queue":"cat","input":{"n":1}}`))
		req.Header.Set("Prefer", "wait=60")
		res, err := client.Do(req)
		if err != nil {
			t.Fatalf("job %d: %v\n%s", i, err, log)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != 200 || !strings.Contains(string(body), `"status":"succeeded"`) || !strings.Contains(string(body), `"attempt":1`) {
			t.Errorf("job %d: %d %s", i, res.StatusCode, body)
		}
	}
	res, err := client.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if !strings.Contains(string(body), "meanwhile_connections_max 60") || strings.Contains(string(body), "meanwhile_connections_closed_total 0") {
		t.Errorf("the metrics are %s", body)
	}
	if text := log.String(); !strings.Contains(text, "idle ones are closed") || !strings.Contains(text, "LimitNOFILE") {
		t.Errorf("the log is %s", text)
	}
}
