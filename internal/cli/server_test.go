package cli

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/bench"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/server"
)

// These tests run commands against the real server. The others use fakeServer.

// startDefaultServer starts a server in this process and returns its URL.
func startDefaultServer(t *testing.T) string {
	cfg := config.Default()
	cfg.Listen, cfg.Data = "127.0.0.1:0", t.TempDir()
	return startServer(t, cfg)
}

// startServer runs a server until the end of the test and returns its URL.
func startServer(t *testing.T, cfg config.Config) string {
	ctx, stop := context.WithCancel(context.Background())
	s, err := server.Open(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		stop()
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	return s.URL()
}

func TestCommandsOnRealServer(t *testing.T) {
	t.Parallel()
	url := startDefaultServer(t)
	newTestEnv(url).want(t, exitOK, "The work takes its time,\n", "submit", "sim", `{"tokens":5}`, "--watch")
	newTestEnv(url).want(t, exitOK, `{"echo":{"a":1}}`+"\n", "submit", "sim", `{"echo":{"a":1}}`, "--wait")
	newTestEnv(url).want(t, exitFailed, "", "submit", "sim", `{"fail_attempts":1,"fail_code":"final:broken"}`, "--wait")

	s := newTestEnv(url)
	if code := s.run(t, "submit", "sim", `{"duration_ms":3600000}`, "--key", "k", "--metadata", "a=b"); code != exitOK {
		t.Fatalf("exit status %d: %s", code, &s.err)
	}
	id := strings.TrimSpace(s.out.String())
	for _, call := range []struct {
		exit    int
		args    string
		message string
	}{
		{exitOK, "get " + id, "a=b"},
		{exitOK, "list --queue sim --status failed", "broken"},
		{exitOK, "list --key k --json", `"id":"` + id},
		{exitOK, "queues", "sim"},
		{exitError, "retry " + id, ""},
		{exitOK, "cancel " + id, id},
		{exitCancelled, "get --wait " + id, "cancelled"},
		{exitCancelled, "watch " + id, ""},
		{exitOK, "retry " + id, id + " "},
		{exitOK, "delete " + id, "deleted"},
		{exitNotFound, "get " + id, ""},
		{exitNotFound, "submit nope {}", ""},
		{exitUsage, `submit sim {"mood":1}`, ""},
		{exitUsage, "submit sim {} --priority 99", ""},
		{exitUsage, "list --status nosuch", ""},
		{exitNotFound, "list --queue nosuch", ""},
	} {
		s := newTestEnv(url)
		if code := s.run(t, strings.Fields(call.args)...); code != call.exit || !strings.Contains(s.out.String(), call.message) {
			t.Errorf("%s: exit status %d, want %d; printed %s%s", call.args, code, call.exit, &s.out, &s.err)
		}
	}
}

func TestSubmitQuestionToSimulatedModel(t *testing.T) {
	t.Parallel()
	s := newTestEnv(startDefaultServer(t))
	if code := s.run(t, "submit", "chat", `{"messages":[{"role":"user","content":"tides?"}],"sim":{"first_token_ms":0,"tokens_per_s":0}}`, "--watch"); code != exitOK || !strings.Contains(s.out.String(), "tides?") {
		t.Errorf("exit status %d: %s%s", code, &s.out, &s.err)
	}
}

func TestIdempotencyKeyCreatesOneJob(t *testing.T) {
	t.Parallel()
	url := startDefaultServer(t)
	first, second, third := newTestEnv(url), newTestEnv(url), newTestEnv(url)
	submit := func(s *testEnv, input string) int {
		return s.run(t, "submit", "sim", input, "--idempotency-key", "once")
	}
	if submit(first, `{"echo":1}`) != exitOK || submit(second, `{"echo":1}`) != exitOK || first.out.String() != second.out.String() {
		t.Errorf("one key created the jobs %s and %s", &first.out, &second.out)
	}
	if submit(third, `{"echo":2}`) != exitUsage {
		t.Error("one key was accepted with different content")
	}
}

func TestSimUpstreamAnswers(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	logReader, logWriter := io.Pipe()
	s := newTestEnv("")
	s.Err = logWriter
	ended := make(chan int, 1)
	go func() {
		ended <- Run(ctx, &s.Env, strings.Fields("sim-upstream --listen 127.0.0.1:0 --first-token 0 --tokens-per-second 0 --model small --fault 401 --fault-times 1"))
	}()
	line := make([]byte, 200)
	n, err := logReader.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, logReader) }()
	_, url, _ := strings.Cut(strings.TrimSpace(string(line[:n])), " at ")
	for try, want := range []int{401, 200} {
		if status := chatStatus(t, url); status != want {
			t.Errorf("the answer to try %d is %d, want %d", try, status, want)
		}
	}
	stop()
	if code := <-ended; code != exitOK {
		t.Errorf("exit status %d", code)
	}
	_ = logWriter.Close()
}

// chatStatus sends a question to a model and returns the status of the answer.
func chatStatus(t *testing.T, url string) int {
	t.Helper()
	res, err := http.Post(url+"/chat/completions", "application/json", strings.NewReader(`{"messages":[{"role":"user","content":"tides?"}],"sim":{"key":"k"}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// benchReport runs a short bench. Its servers run in their own processes, started from this
// test binary.
func benchReport(t testing.TB, args ...string) bench.Report {
	t.Helper()
	s := newTestEnv("")
	args = append([]string{"bench", "--json", "--data", t.TempDir()}, args...)
	if code := Run(t.Context(), &s.Env, args); code != exitOK {
		t.Fatalf("exit status %d: %s", code, &s.err)
	}
	var r bench.Report
	if err := json.Unmarshal(s.out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBenchMeasuresOwnServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts six servers")
	}
	t.Parallel()
	r := benchReport(t, "--jobs", "5", "--clients", "3", "--connections", "2,4", "--duration", "100ms", "--max-jobs", "50", "--idempotent", "--keys", "3")
	if r.Fsync.Samples == 0 || r.Machine.Cores == 0 {
		t.Errorf("the report is %+v", r)
	}
	for _, want := range []struct {
		name    string
		clients int
	}{{"sequential", 1}, {"sequential", 1}, {"parallel", 3}, {"parallel", 3}, {"throughput", 2}, {"throughput", 4}} {
		if len(r.Figures) == 0 {
			t.Fatalf("%s with %d clients is missing", want.name, want.clients)
		}
		f := r.Figures[0]
		r.Figures = r.Figures[1:]
		if f.Name != want.name || f.Clients != want.clients || f.Jobs < 1 || f.Latency.Samples != f.Jobs || f.Floor == nil || f.Floor.Jobs < 1 {
			t.Errorf("want %+v, the figure is %+v", want, f)
		}
		if f.Flow != nil && (f.Flow.Done != int64(f.Jobs) || len(f.Flow.Backlog) == 0) {
			t.Errorf("the flow is %+v", f.Flow)
		}
	}
}

// Every bench runs with few jobs and reports its goals. The test does not check whether the
// goals are met: that needs a run of full size.
func TestEveryBenchRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("runs every bench")
	}
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc to measure a process")
	}
	r := benchReport(t, "all", "--scale", "0.002", "--jobs", "2", "--clients", "2", "--connections", "2", "--duration", "100ms")
	var names []string
	for _, f := range r.Figures {
		if f.Flow == nil && f.Jobs == 0 && (len(f.Goals) == 0 || len(f.Facts) == 0) {
			t.Errorf("%s has no results: %+v", f.Name, f)
		}
		names = append(names, f.Name)
	}
	if got := slices.Compact(names); !slices.Equal(got, bench.Names()) {
		t.Errorf("the benches that ran: %v", got)
	}
}

// The benches of a database run with few jobs, and name the server and its settings.
func TestBenchMeasuresDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("starts ten servers")
	}
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc to measure a process")
	}
	db := pgtest.Shared(t).Database(t)
	r := benchReport(t, "sequential", "streams", "processes", "pickup", "open-snapshot", "--database", db.URL(),
		"--scale", "0.01", "--jobs", "2", "--duration", "100ms")
	var names []string
	for _, f := range r.Figures {
		if len(f.Goals) == 0 || f.Jobs == 0 && len(f.Facts) == 0 {
			t.Errorf("%s has no results: %+v", f.Name, f)
		}
		names = append(names, f.Name)
	}
	if got := slices.Compact(names); !slices.Equal(got, append([]string{"sequential", "streams"}, bench.DatabaseNames()...)) {
		t.Errorf("the benches that ran: %v", got)
	}
	if !strings.Contains(r.Setup.Sync, "synchronous_commit = on") || !strings.Contains(r.Setup.Data, db.Role()) {
		t.Errorf("the setup is %+v", r.Setup)
	}
	var left int
	if err := db.Connect(t).QueryRow(t.Context(), "select count(*) from pg_namespace where nspname like 'bench%'").Scan(&left); err != nil || left > 0 {
		t.Errorf("%d schemas are left: %v", left, err)
	}
}

func TestBenchOfSeveralServersNeedsDatabase(t *testing.T) {
	t.Parallel()
	s := newTestEnv("")
	if code := s.run(t, "bench", "pickup"); code != exitUsage {
		t.Errorf("exit status %d", code)
	}
	s.wantErr(t, "pickup measures several servers of one database", "--database")
}

func TestBenchReportsUnusableDatabase(t *testing.T) {
	t.Parallel()
	s := newTestEnv("")
	if code := s.run(t, "bench", "sequential", "--database", "postgres://a:s3cret@127.0.0.1:1/jobs?connect_timeout=1", "--data", t.TempDir()); code != exitError {
		t.Errorf("exit status %d", code)
	}
	s.wantErr(t, "the database cannot be used")
	if strings.Contains(s.err.String(), "s3cret") {
		t.Errorf("the password is in the error: %s", &s.err)
	}
}

func TestBenchSubmitsBatches(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a benchmark")
	}
	t.Parallel()
	r := benchReport(t, "throughput", "--batch", "100", "--keys", "7", "--connections", "2", "--duration", "100ms", "--max-jobs", "1000")
	if f := r.Figures[0]; f.Jobs < 100 || f.Jobs > 1000 || f.Flow.Done != int64(f.Jobs) || len(f.Goals) != 1 {
		t.Errorf("the figure is %+v", f)
	}
}

func TestBenchMeasuresRunningServer(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a benchmark")
	}
	t.Parallel()
	r := benchReport(t, "sequential", "--jobs", "2", "--server", startDefaultServer(t), "--duration", "10ms")
	if len(r.Figures) != 2 || r.Figures[0].Latency.Samples != 2 {
		t.Errorf("the figures are %+v", r.Figures)
	}
}

func TestBenchReportsFailedServerStart(t *testing.T) {
	t.Setenv("MEANWHILE_LOG_LEVEL", "info")
	t.Setenv("MEANWHILE_SHUTDOWN_GRACE_S", "never")
	s := newTestEnv("")
	if code := s.run(t, "bench", "sequential", "--data", t.TempDir()); code != exitError {
		t.Errorf("exit status %d", code)
	}
	s.wantErr(t, "the server ended at once", "MEANWHILE_SHUTDOWN_GRACE_S")
}

func BenchmarkSequential(b *testing.B) {
	runBenchmark(b, "sequential", "--jobs", "10", "--duration", "100ms")
}

func BenchmarkParallel(b *testing.B) {
	runBenchmark(b, "parallel", "--jobs", "40", "--clients", "20", "--duration", "100ms")
}

func BenchmarkThroughput(b *testing.B) {
	runBenchmark(b, "throughput", "--connections", "64", "--duration", "500ms")
}

// runBenchmark runs a bench b.N times and reports its first figure.
func runBenchmark(b *testing.B, args ...string) {
	var r bench.Report
	for range b.N {
		r = benchReport(b, args...)
	}
	b.ReportMetric(r.Figures[0].PerS, "jobs/s")
	b.ReportMetric(r.Figures[0].Latency.P50, "ms(P50)")
}
