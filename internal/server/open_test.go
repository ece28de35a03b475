package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec/sim"
)

// openServer opens a server without an address.
func openServer(t *testing.T, data string) *Server {
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.Queues = data, "", nil
	s, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCloseReleasesTheDataDirectory(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	first := openServer(t, data)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := openServer(t, data)
	if err := first.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if err := first.Run(t.Context()); err == nil {
		t.Error("a closed server ran")
	}
	second.Close()
}

// Clients of a listener that nobody serves would wait in silence.
func TestListenerWithoutRunIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		cfg := config.Default()
		cfg.Data, cfg.Listen, cfg.Queues = t.TempDir(), "127.0.0.1:0", nil
		s, err := Open(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError})))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(unservedTimeout)
		synctest.Wait()
		if !strings.Contains(log.String(), "wait until Server.Run is called") {
			t.Errorf("the log is %q", log.String())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAddAcceptsQueuesUntilTheServerRuns(t *testing.T) {
	t.Parallel()
	s := openServer(t, t.TempDir())
	q := config.FuncQueue()
	for name, refusal := range map[string]string{"ok": "", "Upper": "a queue's name"} {
		err := s.Add(name, q, sim.Executor{})
		if (err == nil) != (refusal == "") || err != nil && !strings.Contains(err.Error(), refusal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Add("ok", q, sim.Executor{}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("the same name again: %v", err)
	}
	q.Concurrency = 0
	if err := s.Add("none", q, sim.Executor{}); err == nil || !strings.Contains(err.Error(), "concurrency") {
		t.Errorf("no concurrency: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	if err := s.start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Add("late", config.FuncQueue(), sim.Executor{}); err == nil || !strings.Contains(err.Error(), "late") {
		t.Errorf("a queue for a server that runs: %v", err)
	}
	stop()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}

// statusOf returns the status of a request.
func statusOf(d *embedded) int {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return w.Code
}

// A program that forgets Run learns it after a second, from the answer and from the log.
func TestEmbeddedHandlerReportsForgottenRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		d, began, w := newEmbedded(slog.New(slog.NewTextHandler(&log, nil))), time.Now(), httptest.NewRecorder()
		d.ServeHTTP(w, httptest.NewRequest("GET", "/v1/jobs", nil))
		if w.Code != http.StatusServiceUnavailable || time.Since(began) != time.Second {
			t.Errorf("%d after %s", w.Code, time.Since(began))
		}
		if want := "Server.Run has not been called"; !strings.Contains(w.Body.String(), want) || !strings.Contains(log.String(), want) {
			t.Errorf("the answer is %s, the log %s", w.Body, log.String())
		}
	})
}

// The first request begins the run of a test's server, and waits for it as any other.
func TestEmbeddedHandlerRunsOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, calls := newEmbedded(slog.New(slog.DiscardHandler)), 0
		d.onDemand = func() {
			calls++
			go func() {
				d.begin()
				time.Sleep(2 * beginTimeout)
				d.start(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
			}()
		}
		for range 2 {
			if status := statusOf(d); status != http.StatusTeapot {
				t.Errorf("status %d", status)
			}
		}
		if calls != 1 {
			t.Errorf("%d runs began", calls)
		}
	})
}

func TestEmbeddedHandlerWaitsForTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newEmbedded(slog.New(slog.DiscardHandler))
		d.begin()
		if status := statusOf(d); status != http.StatusServiceUnavailable {
			t.Errorf("before the start: %d", status)
		}
		answered := make(chan int)
		go func() { answered <- statusOf(d) }()
		synctest.Wait()
		d.start(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
		if status := <-answered; status != http.StatusTeapot {
			t.Errorf("after the start: %d", status)
		}
		if !d.stop(requestGrace) {
			t.Error("a request is active after all have ended")
		}
		if status := statusOf(d); status != http.StatusServiceUnavailable {
			t.Errorf("after the stop: %d", status)
		}
	})
}

func TestStopWaitsForActiveRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, release := newEmbedded(slog.New(slog.DiscardHandler)), make(chan struct{})
		d.start(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		answered := make(chan int)
		go func() { answered <- statusOf(d) }()
		synctest.Wait()
		stopped := make(chan bool)
		go func() { stopped <- d.stop(requestGrace) }()
		synctest.Wait()
		close(release)
		if !<-stopped {
			t.Error("it did not wait")
		}
		<-answered
	})
}

func TestStopGivesUpAfterItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, release := newEmbedded(slog.New(slog.DiscardHandler)), make(chan struct{})
		d.start(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		answered := make(chan int)
		go func() { answered <- statusOf(d) }()
		synctest.Wait()
		if d.stop(requestGrace) {
			t.Error("it reports that all requests have ended")
		}
		close(release)
		<-answered
	})
}
