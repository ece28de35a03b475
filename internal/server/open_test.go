package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec/sim"
)

// openHouse opens a server without an address.
func openHouse(t *testing.T, data string) *Server {
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.Queues = data, "", nil
	s, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAServerThatIsClosedLetsGoOfItsDirectory(t *testing.T) {
	data := t.TempDir()
	first := openHouse(t, data)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := openHouse(t, data)
	if err := first.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if err := first.Run(t.Context()); err == nil {
		t.Error("a closed server ran")
	}
	second.Close()
}

func TestAServerTakesQueuesUntilItRuns(t *testing.T) {
	s := openHouse(t, t.TempDir())
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

// knock is a request at a door, and the status of its answer.
func knock(d *door) int {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return w.Code
}

func TestRequestsWaitBeforeADoorForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor()
		if status := knock(d); status != http.StatusServiceUnavailable {
			t.Errorf("nobody opened: %d", status)
		}
		answered := make(chan int)
		go func() { answered <- knock(d) }()
		synctest.Wait()
		d.open(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
		if status := <-answered; status != http.StatusTeapot {
			t.Errorf("opened: %d", status)
		}
		if !d.shut(goodbye) {
			t.Error("somebody stayed in an empty house")
		}
		if status := knock(d); status != http.StatusServiceUnavailable {
			t.Errorf("shut: %d", status)
		}
	})
}

func TestADoorWaitsForThoseInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, letGo := newDoor(), make(chan struct{})
		d.open(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-letGo }))
		answered := make(chan int)
		go func() { answered <- knock(d) }()
		synctest.Wait()
		shut := make(chan bool)
		go func() { shut <- d.shut(goodbye) }()
		synctest.Wait()
		close(letGo)
		if !<-shut {
			t.Error("it did not wait")
		}
		<-answered
	})
}

func TestADoorDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, letGo := newDoor(), make(chan struct{})
		d.open(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-letGo }))
		answered := make(chan int)
		go func() { answered <- knock(d) }()
		synctest.Wait()
		if d.shut(goodbye) {
			t.Error("it says that all have left")
		}
		close(letGo)
		<-answered
	})
}
