package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/api/openapi/openapitest"
	"github.com/meanwhile-run/meanwhile/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testServer is a server under test.
type testServer struct {
	*Server
	t    *testing.T
	stop context.CancelFunc
	cfg  config.Config
}

// testLog makes the log of a server under test. A test that does not run in parallel may replace it.
var testLog = func(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// serve starts a server on a free port. It stops with the test, or by quit.
func serve(t *testing.T, change func(*config.Config)) *testServer {
	t.Helper()
	return serveWith(t, change, func(*Server) error { return nil })
}

// serveWith is serve with queues that the test adds.
func serveWith(t *testing.T, change func(*config.Config), add func(*Server) error) *testServer {
	t.Helper()
	cfg := config.Default()
	cfg.Listen, cfg.Data = "127.0.0.1:0", t.TempDir()
	cfg.ShutdownGrace = 0
	if change != nil {
		change(&cfg)
	}
	chooseStore(t, &cfg)
	ctx, stop := context.WithCancel(t.Context())
	s, err := Open(ctx, cfg, testLog(t))
	if err == nil {
		err = errors.Join(add(s), s.start(ctx))
	}
	if err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	t.Cleanup(func() { stop(); s.Wait() })
	return &testServer{Server: s, t: t, stop: stop, cfg: cfg}
}

// quit stops the server and waits for it.
func (s *testServer) quit() {
	s.t.Helper()
	s.stop()
	if err := s.Wait(); err != nil {
		s.t.Errorf("stopped with %v", err)
	}
}

// call makes a request and returns the status and the JSON of the response.
func (s *testServer) call(method, path, body string, headers ...string) (int, map[string]any) {
	s.t.Helper()
	status, text := s.text(method, path, body, headers...)
	var answer map[string]any
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		s.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	return status, answer
}

func (s *testServer) text(method, path, body string, headers ...string) (int, string) {
	s.t.Helper()
	res := s.send(method, path, body, headers...)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func (s *testServer) send(method, path, body string, headers ...string) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.URL()+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	held := &http.Client{Transport: openapitest.CheckTransport(s.t)}
	res, err := held.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

func TestServerIsAliveReadyAndRunsJobs(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	if status, text := s.text("GET", "/healthz", ""); status != 200 || text != "alive\n" {
		t.Errorf("/healthz: %d %q", status, text)
	}
	if status, text := s.text("GET", "/readyz", ""); status != 200 || text != "ready\n" {
		t.Errorf("/readyz: %d %q", status, text)
	}
	status, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"hello"}}`, "Prefer", "wait=60")
	if status != 200 || j["status"] != "succeeded" {
		t.Errorf("%d %v", status, j)
	}
	if status, j := s.call("POST", "/v1/jobs", `{"queue":"nowhere","input":1}`); status != 404 || !strings.Contains(j["detail"].(string), "chat") {
		t.Errorf("an unknown queue: %d %v", status, j)
	}
	s.quit()
}

func TestAcknowledgedJobsSurviveARestart(t *testing.T) {
	t.Parallel()
	first := serve(t, nil)
	_, done := first.call("POST", "/v1/jobs", `{"queue":"sim","input":{"tokens":3}}`, "Prefer", "wait=60")
	_, long := first.call("POST", "/v1/jobs", `{"queue":"sim","input":{"duration_ms":300000}}`)
	_, late := first.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":1},"delay_s":300}`)
	first.quit()

	second := serve(t, func(c *config.Config) { c.Data = first.cfg.Data })
	for _, was := range []map[string]any{done, late} {
		status, is := second.call("GET", "/v1/jobs/"+was["id"].(string), "")
		if status != 200 || is["status"] != was["status"] || is["finished_at"] != was["finished_at"] {
			t.Errorf("%d: was %v, is %v", status, was, is)
		}
	}
	_, again := second.call("GET", "/v1/jobs/"+long["id"].(string), "")
	if again["attempt"] != 1.0 && again["attempt"] != 0.0 {
		t.Errorf("an orderly stop cost an attempt: %v", again)
	}
	if status, _ := second.call("POST", "/v1/jobs/"+long["id"].(string)+"/cancel", ""); status != 200 && status != 202 {
		t.Errorf("cancel: %d", status)
	}
	second.quit()
}

func TestStopTellsWatchersToReconnect(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	_, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"duration_ms":300000}}`)
	stream := s.send("GET", "/v1/jobs/"+j["id"].(string)+"/events", "")
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "event: snapshot") {
	}
	s.quit() // would wait for the stream, and cut it off
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "event: done") {
			t.Error("the job had not ended, and the stream said so")
		}
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream was cut off, not ended: %v", err)
	}
}

// untilMetric reads the metrics until they contain a line.
func (s *testServer) untilMetric(line string) {
	s.t.Helper()
	for text := ""; !strings.Contains(text, "\n"+line+"\n"); {
		_, text = s.text("GET", "/metrics", "")
	}
}

// A disconnected watcher is no longer counted, also when no event is written to it.
func TestWatchersThatLeaveAreUncountedAtOnce(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	_, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":1},"delay_s":300}`)
	open := s.dialAll(10, "GET /v1/jobs/"+j["id"].(string)+"/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	s.untilMetric("meanwhile_watchers 10")
	for _, conn := range open {
		// A connection that closes before its response has begun counts as cut off.
		if status, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(status, " 200 ") {
			t.Errorf("a watch is answered with %q, %v", status, err)
		}
		_ = conn.Close()
	}
	s.untilMetric("meanwhile_watchers 0")
	s.untilMetric(`meanwhile_http_requests_total{method="GET",route="/v1/jobs/{id}/events",status="2xx"} 10`)
}

func TestStopEndsEveryWatch(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	_, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":1},"delay_s":300}`)
	const n = 100
	open := s.dialAll(n, "GET /v1/jobs/"+j["id"].(string)+"/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	s.untilMetric(fmt.Sprintf("meanwhile_watchers %d", n))
	s.quit()
	for i, conn := range open {
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("watcher %d: %v", i, err)
		}
		text, err := io.ReadAll(answer.Body)
		if err != nil || !strings.Contains(string(text), "event: snapshot") || !strings.Contains(string(text), "\nretry: 1000\n") {
			t.Errorf("watcher %d received %q, %v", i, text, err)
		}
	}
}

func TestStoppingServerIsNotReadyAndRefusesSubmits(t *testing.T) {
	t.Parallel()
	model := dictatedModel{make(chan string)}
	upstream := httptest.NewServer(model)
	t.Cleanup(upstream.Close)
	s := serve(t, func(c *config.Config) {
		c.ShutdownGrace = time.Hour
		c.Models = []config.Model{{Name: "dictated", BaseURL: upstream.URL + "/v1"}}
	})
	_, j := s.call("POST", "/v1/jobs", question)
	model.words <- "half of it" // the job runs
	stream := s.send("GET", "/v1/jobs/"+j["id"].(string)+"/events", "")
	defer stream.Body.Close()
	s.stop()
	for phase(s.components.health.now.Load()) != stopping {
		if status, _ := s.text("GET", "/healthz", ""); status != 200 {
			t.Errorf("/healthz: %d", status)
		}
	}
	if status, text := s.text("GET", "/readyz", ""); status != 503 || text != "stopping\n" {
		t.Errorf("/readyz: %d %q", status, text)
	}
	status, refusal := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`)
	if status != 503 || refusal["code"] != "shutting_down" {
		t.Errorf("a submit: %d %v", status, refusal)
	}
	close(model.words)
	text, err := io.ReadAll(stream.Body)
	if err != nil || !strings.Contains(string(text), "event: done") {
		t.Errorf("running work had its grace, and its watcher did not see the end: %v\n%s", err, text)
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}

func TestFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	log := slog.New(slog.DiscardHandler)

	other := config.Default()
	other.Listen, other.Data = "127.0.0.1:0", s.cfg.Data
	if _, err := Open(t.Context(), other, log); err == nil || !strings.Contains(err.Error(), "another server (pid") {
		t.Errorf("the same data directory: %v", err)
	}
	other.Data = t.TempDir()
	other.Listen = strings.TrimPrefix(s.URL(), "http://")
	if _, err := Open(t.Context(), other, log); err == nil || !strings.Contains(err.Error(), "another program uses it; stop that, or use another address (--listen)") {
		t.Errorf("the same address: %v", err)
	}
	other.Listen, other.Metrics.Listen = "127.0.0.1:0", other.Listen
	if _, err := Open(t.Context(), other, log); err == nil || !strings.Contains(err.Error(), "use another address (metrics.listen)") {
		t.Errorf("the same address for metrics: %v", err)
	}
	d, err := openData(other.Data, wholeLayout)
	if err != nil {
		t.Fatalf("a server that could not start holds its directory: %v", err)
	}
	d.release()
	s.quit()
}

func TestFailedListenerStopsTheServer(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	if err := s.components.listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err == nil || !strings.Contains(err.Error(), net.ErrClosed.Error()) {
		t.Errorf("the listener is gone: %v", err)
	}
}

func TestChatUsesTheBuiltInModel(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	status, j := s.call("POST", "/v1/jobs", `{"queue":"chat","input":{
		"messages":[{"role":"user","content":"How do tides work?"}],
		"sim":{"first_token_ms":0,"tokens_per_s":0}}}`, "Prefer", "wait=60")
	if status != 200 || j["status"] != "succeeded" || j["output_text"] == "" || j["usage"] == nil {
		t.Errorf("%d %v", status, j)
	}
	status, refusal := s.call("POST", "/v1/jobs", `{"queue":"chat","input":{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}}`)
	if status != 400 || !strings.Contains(refusal["detail"].(string), "sim") {
		t.Errorf("an unknown model: %d %v", status, refusal)
	}
	s.quit()
}

func TestQuestionSurvivesARestart(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for a streamed answer")
	}
	t.Parallel()
	first := serve(t, nil)
	status, task := first.call("POST", "/api/chat", `{"query":"How do tides work?"}`)
	if status != 202 {
		t.Fatalf("%d %v", status, task)
	}
	first.quit()

	second := serve(t, func(c *config.Config) { c.Data = first.cfg.Data })
	events := second.send("GET", "/v1/jobs/"+task["task_id"].(string)+"/events", "")
	defer events.Body.Close()
	if text, err := io.ReadAll(events.Body); err != nil || !strings.Contains(string(text), "event: done") {
		t.Fatalf("%v %s", err, text)
	}
	status, end := second.call("GET", "/api/chat/status/"+task["task_id"].(string), "")
	if status != 200 || end["status"] != "completed" {
		t.Errorf("%d %v", status, end)
	}
	_, page := second.call("GET", "/api/conversations/"+task["conversation_id"].(string)+"/messages", "")
	if messages := page["data"].([]any); len(messages) != 2 || messages[1].(map[string]any)["content"] != end["content"] {
		t.Errorf("%v", page)
	}
	second.quit()
}

// A job that succeeded stands at 100 percent, also where its executor has reported nothing.
func TestSucceededJobStandsAt100(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, input := range []string{`{}`, `{"tokens":3}`} {
		id, _ := s.watchURL(input)
		_, j := s.call("GET", "/v1/jobs/"+id, "", "Prefer", "wait=20")
		if progress, _ := j["progress"].(map[string]any); j["status"] != "succeeded" || progress["percent"] != 100.0 {
			t.Errorf("%s: %v", input, j)
		}
	}
	id, _ := s.watchURL(`{"fail_attempts":1,"fail_code":"final:x"}`)
	_, j := s.call("GET", "/v1/jobs/"+id, "", "Prefer", "wait=20")
	if progress, _ := j["progress"].(map[string]any); j["status"] != "failed" || progress["percent"] != 0.0 {
		t.Errorf("a failed job: %v", j)
	}
}
