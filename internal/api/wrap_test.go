package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// serveHandler runs one request through a wrapped handler. It returns the response, the
// log, and the value of a panic.
func serveHandler(h Handler) (w *httptest.ResponseRecorder, logged string, panicked any) {
	var log bytes.Buffer
	w = httptest.NewRecorder()
	defer func() { logged, panicked = log.String(), recover() }()
	Wrap(slog.New(slog.NewTextHandler(&log, nil)), WriteProblem, h).ServeHTTP(w, httptest.NewRequest("GET", "/x", nil))
	return w, "", nil
}

func TestWrapWritesReturnedError(t *testing.T) {
	t.Parallel()
	w, logged, _ := serveHandler(func(http.ResponseWriter, *http.Request) error {
		return job.Errorf(job.NotFound, "there is no such thing")
	})
	if w.Code != 404 || !strings.Contains(w.Body.String(), `"code":"not_found"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if logged != "" {
		t.Errorf("a caller's mistake was logged: %s", logged)
	}
}

func TestWrapLogsCauseOfServerError(t *testing.T) {
	t.Parallel()
	w, logged, _ := serveHandler(func(http.ResponseWriter, *http.Request) error {
		return job.Wrapf(job.Unavailable, errors.New("disk on fire"), "the store cannot be written")
	})
	if w.Code != 503 || strings.Contains(w.Body.String(), "fire") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if !strings.Contains(logged, "disk on fire") {
		t.Errorf("the cause is not in the log: %q", logged)
	}
}

// A request whose context has ended does not get a 500. An error with another cause is
// logged all the same.
func TestAbortedRequestIsNoFaultOfServer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err    error
		logged bool
	}{
		{context.Canceled, false},
		{fmt.Errorf("the read: %w", context.DeadlineExceeded), false},
		{errors.New("disk on fire"), true},
	} {
		var log bytes.Buffer
		w := httptest.NewRecorder()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		Wrap(slog.New(slog.NewTextHandler(&log, nil)), WriteProblem, func(http.ResponseWriter, *http.Request) error { return tt.err }).
			ServeHTTP(w, httptest.NewRequest("GET", "/x", nil).WithContext(ctx))
		if w.Code != 499 || !strings.Contains(w.Body.String(), "aborted") || strings.Contains(log.String(), tt.err.Error()) != tt.logged {
			t.Errorf("%v: %d %s, logged: %s", tt.err, w.Code, w.Body, &log)
		}
	}
}

// A value that has no JSON is a defect of the server and is logged.
func TestWrapLogsValueWithoutJSON(t *testing.T) {
	t.Parallel()
	w, logged, _ := serveHandler(func(w http.ResponseWriter, _ *http.Request) error {
		WriteJSON(w, 200, math.NaN())
		return nil
	})
	if w.Code != 500 || !strings.Contains(logged, "NaN") {
		t.Errorf("%d %s, logged: %s", w.Code, w.Body, logged)
	}
}

func TestWrapTurnsPanicInto500(t *testing.T) {
	t.Parallel()
	w, logged, panicked := serveHandler(func(http.ResponseWriter, *http.Request) error { panic("oops") })
	if panicked != nil || w.Code != 500 {
		t.Fatalf("%v, %d", panicked, w.Code)
	}
	if !strings.Contains(logged, "oops") || !strings.Contains(logged, "wrap_test.go") {
		t.Errorf("log: %q", logged)
	}
}

// A client that sends its whole body first gets the refusal, unless the body is far too
// long or the server is overloaded.
func TestWrapDrainsRefusedBody(t *testing.T) {
	t.Parallel()
	wrong := job.Errorf(job.TooLarge, "too large")
	for _, tt := range []struct {
		rule   string
		err    error
		length int64
		expect string
		read   bool
	}{
		{"a body that is sent already", wrong, 2 << 20, "", true},
		{"a body without a declared length", wrong, -1, "", true},
		{"a body over the drain limit", wrong, maxDrained + 1, "", false},
		{"a body that waits for 100-continue", wrong, 2 << 20, "100-continue", false},
		{"the server is full", job.Errorf(job.Overloaded, "full"), 2 << 20, "", false},
		{"the key is full", job.Errorf(job.KeyFull, "full"), 2 << 20, "", false},
	} {
		body := strings.NewReader(strings.Repeat("x", 2<<20))
		r := httptest.NewRequest("POST", "/x", body)
		r.ContentLength = tt.length
		if tt.expect != "" {
			r.Header.Set("Expect", tt.expect)
		}
		w := httptest.NewRecorder()
		Wrap(nil, WriteProblem, func(http.ResponseWriter, *http.Request) error { return tt.err }).ServeHTTP(w, r)
		if w.Code < 400 || (body.Len() == 0) != tt.read {
			t.Errorf("%s: %d, %d bytes were left", tt.rule, w.Code, body.Len())
		}
	}
}

// The drain of an endless body stops at the limit.
func TestWrapLimitsDrainOfRefusedBody(t *testing.T) {
	t.Parallel()
	body := new(endlessBody)
	r := httptest.NewRequest("POST", "/x", body)
	r.ContentLength = -1
	Wrap(nil, WriteProblem, func(http.ResponseWriter, *http.Request) error { return tooLarge(1) }).ServeHTTP(httptest.NewRecorder(), r)
	if body.n > maxDrained+1<<20 {
		t.Errorf("%d bytes were read", body.n)
	}
}

// A response that has begun is broken off, not completed with a problem.
func TestWrapAbortsBegunResponse(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("late") },
		"panic": func() error { panic("late") },
	} {
		w, _, panicked := serveHandler(func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, "half")
			return fail()
		})
		if panicked != http.ErrAbortHandler {
			t.Errorf("%s: panicked with %v, want http.ErrAbortHandler", name, panicked)
		}
		if w.Body.String() != "half" {
			t.Errorf("%s: the body is %q", name, w.Body)
		}
	}
}

// A flush alone begins the response.
func TestFlushBeginsResponse(t *testing.T) {
	t.Parallel()
	_, _, panicked := serveHandler(func(w http.ResponseWriter, _ *http.Request) error {
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Errorf("flush: %v", err)
		}
		return errors.New("late")
	})
	if panicked != http.ErrAbortHandler {
		t.Errorf("panicked with %v", panicked)
	}
}

// A 1xx status does not begin the response.
func TestInformationalStatusDoesNotBeginResponse(t *testing.T) {
	t.Parallel()
	w, _, panicked := serveHandler(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusEarlyHints)
		return job.Errorf(job.NotFound, "there is no such thing")
	})
	if panicked != nil || !strings.Contains(w.Body.String(), "not_found") {
		t.Errorf("%v, %s", panicked, w.Body)
	}
}

func TestWrapPropagatesAbortHandler(t *testing.T) {
	t.Parallel()
	w, logged, panicked := serveHandler(func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) })
	if panicked != http.ErrAbortHandler || logged != "" || w.Body.Len() > 0 {
		t.Errorf("%v, %q, %q", panicked, logged, w.Body)
	}
}

// Wrap writes nothing to a hijacked connection.
func TestWrapIgnoresHijackedConnection(t *testing.T) {
	t.Parallel()
	done := make(chan any, 1)
	h := Wrap(nil, WriteProblem, func(w http.ResponseWriter, _ *http.Request) error {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		_ = conn.Close()
		return errors.New("after the end")
	})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { done <- recover() }()
		h.ServeHTTP(w, r)
	}))
	var serverLog bytes.Buffer // messages of net/http about a second response
	srv.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(&serverLog, nil), slog.LevelError)
	srv.Start()
	defer srv.Close()
	res, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if string(body) != "hello" {
		t.Errorf("got %q", body)
	}
	if p := <-done; p != nil || serverLog.Len() > 0 {
		t.Errorf("panicked with %v: %s", p, &serverLog)
	}
}
