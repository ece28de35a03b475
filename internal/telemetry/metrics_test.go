package telemetry

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// read returns the text of a scrape.
func read(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// expect checks that the metrics contain the lines.
func expect(t *testing.T, m *Metrics, lines ...string) {
	t.Helper()
	text := read(t, m)
	for _, line := range lines {
		if !strings.Contains(text, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			t.Errorf("the line %s is missing among\n%s", line, strings.Join(regexp.MustCompile(`(?m)^`+name+`.*$`).FindAllString(text, -1), "\n"))
		}
	}
}

func TestMetricsCountEngineEvents(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	m.OpSettled(0, 3*time.Millisecond)
	m.BatchSettled(5)
	m.OpRefused("submit", job.QueueFull)
	m.AttemptBegan("chat", 20*time.Millisecond)
	m.AttemptEnded("chat", engine.EndedSucceeded, 3*time.Second)
	m.AttemptEnded("chat", engine.EndedLost, 0)
	m.OutputStored(11)
	m.LeaseSwept(false)
	m.LeaseSwept(true)
	expect(t, m,
		`meanwhile_commit_seconds_bucket{lane="urgent",le="0.002"} 0`,
		`meanwhile_commit_seconds_bucket{lane="urgent",le="0.004"} 1`,
		`meanwhile_commit_seconds_count{lane="upkeep"} 0`,
		`meanwhile_commit_batch_ops_bucket{le="8"} 1`,
		`meanwhile_ops_refused_total{code="queue_full",op="submit"} 1`,
		`meanwhile_job_wait_seconds_bucket{queue="chat",le="0.05"} 1`,
		`meanwhile_attempts_total{outcome="succeeded",queue="chat"} 1`,
		`meanwhile_attempts_total{outcome="lost",queue="chat"} 1`,
		`meanwhile_attempts_total{outcome="failed",queue="chat"} 0`,
		`meanwhile_attempt_run_seconds_sum{queue="chat"} 3`,
		`meanwhile_attempt_run_seconds_count{queue="chat"} 1`,
		`meanwhile_output_bytes_total 11`,
		`meanwhile_leases_taken_total{reason="silent"} 1`,
		`meanwhile_leases_taken_total{reason="cancel_ignored"} 1`,
	)
}

func TestSourcesAreReadAtEachScrape(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	asked := 0
	m.AddSources(Sources{
		Queues: func(context.Context) ([]engine.QueueView, error) {
			asked++
			return []engine.QueueView{{
				Queue:        engine.Queue{Name: "chat", MaxDepth: 7, Concurrency: 3},
				Counts:       job.Counts{Queued: 2, Running: 1, Failed: 4, WaitingBytes: 99, Paused: true},
				OldestQueued: 1500 * time.Millisecond,
			}}, nil
		},
		Watchers:         func() (int, int) { return 5, 20 },
		Size:             func(context.Context) (int64, error) { return 4096, nil },
		Free:             func() (int64, bool) { return 0, false },
		CallbackCircuits: func() int { return 8 },
		Inbox: func(context.Context) (InboxStats, error) {
			return InboxStats{Rows: 6, Oldest: 2500 * time.Millisecond, Refused: 3}, nil
		},
		Models: func() []ModelState {
			return []ModelState{{Model: "m", CircuitOpen: true, Calls: 3, Closed: 5 * time.Second, RatePerS: 0.5, Refused: 7}, {Model: "n"}}
		},
	})
	if asked != 0 {
		t.Error("the queues were read before a scrape")
	}
	expect(t, m,
		`meanwhile_queue_jobs{queue="chat",state="queued"} 2`,
		`meanwhile_queue_jobs{queue="chat",state="parked"} 0`,
		`meanwhile_queue_max_depth{queue="chat"} 7`,
		`meanwhile_queue_waiting_bytes{queue="chat"} 99`,
		`meanwhile_queue_oldest_seconds{queue="chat"} 1.5`,
		`meanwhile_queue_paused{queue="chat"} 1`,
		`meanwhile_queue_concurrency{queue="chat"} 3`,
		`meanwhile_jobs_ended_total{queue="chat",state="failed"} 4`,
		`meanwhile_watchers 5`, `meanwhile_watchers_max 20`, `meanwhile_store_bytes 4096`,
		`meanwhile_inbox_rows 6`, `meanwhile_inbox_oldest_seconds 2.5`, `meanwhile_inbox_refused_total 3`,
		`meanwhile_callback_circuits_open 8`,
		`meanwhile_model_circuit_open{model="m"} 1`, `meanwhile_model_circuit_open{model="n"} 0`,
		`meanwhile_model_calls{model="m"} 3`, `meanwhile_model_closed_seconds{model="m"} 5`, `meanwhile_model_rate{model="m"} 0.5`,
		`meanwhile_model_refused_total{model="m"} 7`, `meanwhile_model_closed_seconds{model="n"} 0`,
	)
	for _, absent := range []string{"meanwhile_queue_max_bytes", "meanwhile_disk_free_bytes"} {
		if strings.Contains(read(t, m), absent+" ") || strings.Contains(read(t, m), absent+"{") {
			t.Errorf("%s has a value that no source knows", absent)
		}
	}
}

func TestFailingSourceHidesOnlyItsOwnMetrics(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	m.AddSources(Sources{
		Queues:   func(context.Context) ([]engine.QueueView, error) { return nil, io.ErrUnexpectedEOF },
		Watchers: func() (int, int) { return 5, 20 },
	})
	expect(t, m, `meanwhile_watchers 5`)
}

// newTestMiddleware wraps a handler, and returns the metrics of its requests.
func newTestMiddleware(h http.Handler) (*Metrics, http.Handler) {
	m := NewMetrics()
	return m, NewMiddleware(m, nil, slog.New(slog.DiscardHandler)).Wrap(h)
}

func TestMiddlewareCountsByRouteMethodAndStatus(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /jobs/{id}", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("POST /jobs", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(202) })
	mux.HandleFunc("GET /nothing", func(w http.ResponseWriter, r *http.Request) {})
	mux.HandleFunc("GET /cut", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("GET /longpoll", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Preference-Applied", "wait=5") })
	mux.HandleFunc("GET /hints", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(103)
		w.WriteHeader(404)
		w.WriteHeader(500)
	})
	mux.HandleFunc("/", http.NotFound)
	m, h := newTestMiddleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		other := r.WithContext(r.Context()) // a handler may pass another request to the mux
		defer func() { w.(interface{ RecordRoute(string) }).RecordRoute(other.Pattern) }()
		mux.ServeHTTP(w, other)
	}))
	for _, line := range []string{
		"GET /jobs/1", "GET /jobs/2", "HEAD /jobs/3", "POST /jobs", "GET /nothing", "GET /cut", "GET /stream",
		"GET /longpoll", "GET /hints", "GET /elsewhere", "BREW /jobs",
	} {
		method, path, _ := strings.Cut(line, " ")
		func() {
			defer func() { _ = recover() }()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
		}()
	}
	expect(t, m,
		`meanwhile_http_requests_total{method="GET",route="/jobs/{id}",status="2xx"} 2`,
		`meanwhile_http_requests_total{method="HEAD",route="/jobs/{id}",status="2xx"} 1`,
		`meanwhile_http_requests_total{method="POST",route="/jobs",status="2xx"} 1`,
		`meanwhile_http_requests_total{method="GET",route="/nothing",status="2xx"} 1`,
		`meanwhile_http_requests_total{method="GET",route="/cut",status="cut"} 1`,
		`meanwhile_http_requests_total{method="GET",route="/stream",status="2xx"} 1`,
		`meanwhile_http_requests_total{method="GET",route="/hints",status="4xx"} 1`,
		`meanwhile_http_requests_total{method="GET",route="unknown",status="4xx"} 1`,
		`meanwhile_http_requests_total{method="other",route="unknown",status="4xx"} 1`,
		`meanwhile_http_request_seconds_count{method="GET",route="/jobs/{id}"} 2`,
		`meanwhile_http_request_seconds_count{method="GET",route="/stream"} 0`,
		`meanwhile_http_request_seconds_count{method="GET",route="/longpoll"} 0`,
	)
}

// A handler may hijack the connection. The switch of protocols counts as 1xx.
func TestMiddlewareCountsHijackedConnection(t *testing.T) {
	t.Parallel()
	m, h := newTestMiddleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close()
	}))
	returned := make(chan struct{}, 1) // the server does not wait for a handler that hijacked
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		returned <- struct{}{}
	}))
	defer server.Close()
	if res, err := http.Get(server.URL); err == nil {
		_ = res.Body.Close()
	}
	<-returned
	expect(t, m, `meanwhile_http_requests_total{method="GET",route="unknown",status="1xx"} 1`, `meanwhile_http_request_seconds_count{method="GET",route="unknown"} 0`)
}

func TestMiddlewareCountsHijackedResponseAtItsEnd(t *testing.T) {
	t.Parallel()
	const counted = `meanwhile_http_requests_total{method="GET",route="unknown",status="2xx"}`
	conns := make(chan net.Conn, 1)
	m, h := newTestMiddleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conns <- conn
	}))
	returned := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		returned <- struct{}{}
	}))
	defer server.Close()
	res, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-returned
	if text := read(t, m); strings.Contains(text, counted) {
		t.Error("it was counted before its end")
	}
	conn := <-conns
	_, _ = conn.Close(), conn.Close()
	expect(t, m, counted+" 1", `meanwhile_http_request_seconds_count{method="GET",route="unknown"} 0`)
}

func TestMiddlewareAllocatesNothing(t *testing.T) {
	_, h := newTestMiddleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }))
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	if n := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); n >= 1 {
		t.Errorf("%v allocations a request", n)
	}
}

func BenchmarkMiddleware(b *testing.B) {
	_, h := newTestMiddleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }))
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

// The events of one job: two ops, a start, an end and its output.
func BenchmarkMetricsOfJob(b *testing.B) {
	m := NewMetrics()
	b.ReportAllocs()
	for b.Loop() {
		m.OpSettled(0, time.Millisecond)
		m.OpSettled(2, time.Millisecond)
		m.AttemptBegan("sim", time.Millisecond)
		m.AttemptEnded("sim", engine.EndedSucceeded, time.Millisecond)
		m.OutputStored(100)
	}
}

func TestMiddlewareLogsRequestsAtDebug(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	middleware := NewMiddleware(NewMetrics(), nil, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	h := middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-ID", "r-1")
		w.(interface{ RecordRoute(string) }).RecordRoute("GET /jobs/{id}")
		w.WriteHeader(404)
	}))
	r := httptest.NewRequest("GET", "/jobs/1?token=secret", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	h.ServeHTTP(httptest.NewRecorder(), r)
	for _, want := range []string{"level=DEBUG", "route=/jobs/{id}", "path=/jobs/1 ", "status=404", "request_id=r-1", "trace_id=0af7651916cd43dd8448eb211c80319c", "took="} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in %s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("a token is in the log: %s", out.String())
	}
}
