package server

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// watchURL submits a job and returns its id and the address at which a browser
// follows it.
func (s *testServer) watchURL(input string, headers ...string) (id, url string) {
	s.t.Helper()
	status, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":`+input+`}`, headers...)
	urls, _ := j["urls"].(map[string]any)
	url, ok := urls["watch"].(string)
	if status >= 300 || !ok {
		s.t.Fatalf("%d %v", status, j)
	}
	return j["id"].(string), url
}

// stranger makes a request without any credential but the URL.
func (s *testServer) stranger(method, url string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	path, ok := strings.CutPrefix(url, s.URL())
	if !ok {
		s.t.Fatalf("%s does not lead to %s", url, s.URL())
	}
	res := s.send(method, path, "", append(headers, "Origin", "https://app.example")...)
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		s.t.Fatal(err)
	}
	if got := res.Header.Get("Access-Control-Allow-Origin"); got != "https://app.example" {
		s.t.Errorf("%s: the page may not read the answer: %q", url, got)
	}
	return res, body.String()
}

func allowApp(c *config.Config) { c.AllowedOrigins = []string{"https://app.example"} }

// A watch token opens the routes that read its job, and its cancel if the submit asked for
// that. A new route refuses it.
func TestTokenIsRefusedOnOtherRoutes(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	id, events := s.watchURL(`{}`, "Prefer", "watch=cancel")
	_, token, _ := strings.Cut(events, "?token=")
	open := []string{
		"GET /v1/jobs/{id}", "GET /v1/jobs/{id}/output", "GET /v1/jobs/{id}/events", "GET /v1/jobs/{id}/result",
		"POST /v1/jobs/{id}/cancel", "GET /v1/watch",
	}
	var routes patterns
	s.components.register(&routes)
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer("{id}", id, "{task}", id, "{name}", "a", "{queue}", "sim", "{$}", "").Replace(path)
		r := httptest.NewRequest(method, s.URL()+path+"?token="+token, nil)
		r.RemoteAddr = "127.0.0.1:5000"
		w := httptest.NewRecorder()
		s.components.routes("").ServeHTTP(w, r)
		forbidden := w.Code == http.StatusForbidden && strings.Contains(w.Body.String(), "a watch token does not open this call")
		if forbidden == slices.Contains(open, route) {
			t.Errorf("%s: %d %s", route, w.Code, w.Body)
		}
	}
}

// A page of another origin can follow a job by its watch URL over every transport, and do
// nothing else.
func TestPageFollowsAJobByItsWatchURL(t *testing.T) {
	t.Parallel()
	s := serve(t, allowApp)
	id, events := s.watchURL(`{"tokens":5,"tokens_per_s":1000}`, "X-User-ID", "ann")
	other, _ := s.watchURL(`{}`, "X-User-ID", "bob")
	at := func(call string) string { return strings.Replace(events, "/events", call, 1) }

	res, text := s.stranger("GET", events)
	if res.StatusCode != 200 || !strings.Contains(text, "event: output") || !strings.HasSuffix(strings.TrimSpace(text), "}") {
		t.Fatalf("%d %s", res.StatusCode, text)
	}
	last := text[strings.LastIndex(text, "\nid: ")+5:]
	last, _, _ = strings.Cut(last, "\n")
	if res, text := s.stranger("GET", events, "Last-Event-ID", last); !strings.HasSuffix(last, ".done") || res.StatusCode != 204 || text != "" {
		t.Errorf("back from %q: %d %s", last, res.StatusCode, text)
	}
	if res, text := s.stranger("GET", at("/output")+"&after=1", "Prefer", "wait=60"); res.StatusCode != 200 || !strings.Contains(text, `"seq":2`) || res.Header.Get("Preference-Applied") != "wait=60" {
		t.Errorf("its output: %d %s", res.StatusCode, text)
	}
	if res, text := s.stranger("GET", at("/result")); res.StatusCode != 200 {
		t.Errorf("its result: %d %s", res.StatusCode, text)
	}
	if res, text := s.stranger("GET", at("")); res.StatusCode != 200 || !strings.Contains(text, `"watch":null`) {
		t.Errorf("itself: %d %s", res.StatusCode, text)
	}
	if res, text := s.stranger("POST", at("/cancel")); res.StatusCode != 403 {
		t.Errorf("its cancel: %d %s", res.StatusCode, text)
	}
	if res, text := s.stranger("GET", strings.Replace(events, id, other, 1)); res.StatusCode != 404 {
		t.Errorf("another job: %d %s", res.StatusCode, text)
	}
	if res, text := s.stranger("GET", s.URL()+"/v1/jobs"); res.StatusCode != 403 {
		t.Errorf("without its token: %d %s", res.StatusCode, text)
	}
	if res, _ := s.stranger("OPTIONS", at("/output"), "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "prefer"); res.StatusCode != 204 {
		t.Errorf("a preflight: %d", res.StatusCode)
	}
	if status, _ := s.text("GET", "/v1/jobs", "", "Origin", "https://evil.example"); status != 403 {
		t.Errorf("a page of nobody: %d", status)
	}
}

// A watch URL with the right to cancel cancels its job, by a POST and on a socket.
func TestWatchTokenCancelsIfAllowed(t *testing.T) {
	t.Parallel()
	s := serve(t, allowApp)
	_, url := s.watchURL(`{"duration_ms":3600000}`, "Prefer", "watch=cancel, watch-ttl=60")
	if res, text := s.stranger("POST", strings.Replace(url, "/events", "/cancel", 1)); res.StatusCode != 202 && res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, text)
	}
	id, url := s.watchURL(`{"duration_ms":3600000}`, "Prefer", "watch=cancel")
	_, token, _ := strings.Cut(url, "?token=")
	conn, _, err := websocket.Dial(t.Context(), s.URL()+"/v1/watch?token="+token, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://app.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	for _, kind := range []string{"watch", "cancel"} {
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(`{"type":"`+kind+`","id":"`+id+`"}`)); err != nil {
			t.Fatal(err)
		}
	}
	for {
		_, text, err := conn.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(`"type":"done"`)) {
			if !bytes.Contains(text, []byte(`"status":"cancelled"`)) {
				t.Errorf("%s", text)
			}
			return
		}
	}
}

// A watch URL is valid after a restart, and invalid with another data directory.
func TestWatchURLSurvivesARestart(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	s := serve(t, allowApp)
	_, url := s.watchURL(`{"echo":1}`)
	s.quit()
	first := s.URL()
	if info, err := os.Stat(filepath.Join(s.cfg.Data, "watch.key")); err != nil || info.Mode() != 0o600 || info.Size() != 32 {
		t.Fatalf("the key: %v, %v", info, err)
	}
	again := serve(t, func(c *config.Config) { allowApp(c); c.Data = s.cfg.Data })
	if res, text := again.stranger("GET", strings.Replace(url, first, again.URL(), 1)); res.StatusCode != 200 || !strings.Contains(text, "event: done") {
		t.Errorf("after a restart: %d %s", res.StatusCode, text)
	}
	elsewhere := serve(t, allowApp)
	if res, text := elsewhere.stranger("GET", strings.Replace(url, first, elsewhere.URL(), 1)); res.StatusCode != 401 {
		t.Errorf("at another server: %d %s", res.StatusCode, text)
	}
}

func TestDamagedWatchKeyIsRefused(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "watch.key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Listen, cfg.Data = "127.0.0.1:0", data
	if s, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "watch.key is damaged") {
		if err == nil {
			_ = s.Close()
		}
		t.Errorf("%v", err)
	}
}

// The response to a question has its watch URL.
func TestPageFollowsAQuestionByItsWatchURL(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *config.Config) { allowApp(c); c.PublicURL = "https://jobs.example" })
	status, a := s.call("POST", "/api/chat", `{"query":"How do tides work?"}`)
	url, _ := a["urls"].(map[string]any)["watch"].(string)
	if status != 202 || !strings.HasPrefix(url, "https://jobs.example/v1/jobs/"+a["task_id"].(string)+"/events?token=wt_") {
		t.Fatalf("%d %v", status, a)
	}
	url = strings.Replace(strings.Replace(url, "https://jobs.example", s.URL(), 1), "/events", "/output", 1)
	if res, text := s.stranger("GET", url, "Prefer", "wait=60"); res.StatusCode != 200 || !strings.Contains(text, `"kind"`) {
		t.Errorf("%d %s", res.StatusCode, text)
	}
}

// writes keeps the text of a log.
type writes struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.Write(p)
}

// No token is logged, valid or not, at level debug either.
func TestTokensAreNotLogged(t *testing.T) {
	t.Parallel()
	var log writes
	cfg := config.Default()
	cfg.Listen, cfg.Data, cfg.ShutdownGrace = "127.0.0.1:0", t.TempDir(), 0
	allowApp(&cfg)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	server, err := Open(ctx, cfg, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	if err := server.start(ctx); err != nil {
		t.Fatal(err)
	}
	s := &testServer{Server: server, t: t, stop: stop, cfg: cfg}
	_, url := s.watchURL(`{"duration_ms":3600000}`)
	_, token, _ := strings.Cut(url, "?token=")

	res := s.send("GET", strings.TrimPrefix(url, s.URL()), "") // a stream that ends when the server stops
	if _, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/events?token=" + token + "x", "?token=" + token, "/retry?token=" + token, "?token=" + token + "&token=" + token, "/output?after=9&token=" + token} {
		s.stranger("GET", strings.Replace(url, "/events?token="+token, path, 1))
	}
	s.stranger("GET", s.URL()+"/v1/watch?token="+token)
	s.stranger("GET", s.URL()+"/nowhere?token="+token, "Authorization", "Bearer "+token)
	s.stranger("GET", s.URL()+"/v1/jobs", "Authorization", "Bearer "+token)
	s.quit()
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if log.all.Len() == 0 || strings.Contains(log.all.String(), token) {
		t.Errorf("the log: %s", log.all.String())
	}
}
