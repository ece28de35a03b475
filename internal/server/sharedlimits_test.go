package server

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// maxRunningOf returns a queue's max_running, as a server answers it.
func (s *testServer) maxRunningOf(queue string) int {
	s.t.Helper()
	status, q := s.call("GET", "/v1/queues/"+queue, "")
	if status != 200 {
		s.t.Fatal(status, q)
	}
	return int(q["limits"].(map[string]any)["max_running"].(float64))
}

// untilMaxRunning waits until a server has a max_running. It follows the others every 5 s.
func (s *testServer) untilMaxRunning(queue string, want int) {
	s.t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(time.Minute); s.maxRunningOf(queue) != want; {
		select {
		case <-again.C:
		case <-deadline:
			s.t.Fatalf("max_running is %d after a minute, want %d", s.maxRunningOf(queue), want)
		}
	}
}

// Three servers on one database, whose queue has another max_running in each: the smallest holds
// everywhere, and the next one when its server has stopped.
func TestSmallestLimitOfServersHolds(t *testing.T) {
	t.Parallel()
	database := pgtest.Shared(t).Schema(t).URL()
	start := func(maxRunning int) *testServer {
		return serve(t, func(c *config.Config) {
			c.Database = database
			q := c.Queues["sim"]
			q.MaxRunning, q.Concurrency = maxRunning, 3
			c.Queues["sim"] = q
		})
	}
	a, b, c := start(3), start(1), start(2)
	if n := c.maxRunningOf("sim"); n != 1 {
		t.Errorf("the last one starts with max_running %d", n)
	}
	a.untilMaxRunning("sim", 1)
	ids := map[string]bool{}
	for range 3 {
		_, j := a.call("POST", "/v1/jobs", `{"queue":"sim","input":{"duration_ms":3600000}}`)
		ids[j["id"].(string)] = true
	}
	running := func(want float64) {
		t.Helper()
		again := time.NewTicker(100 * time.Millisecond)
		defer again.Stop()
		for deadline := time.After(time.Minute); ; {
			_, q := a.call("GET", "/v1/queues/sim", "")
			counts := q["counts"].(map[string]any)
			if counts[job.Running.String()] == want {
				return
			}
			select {
			case <-again.C:
			case <-deadline:
				t.Fatalf("%v, want %v running", counts, want)
			}
		}
	}
	running(1)
	b.quit()
	c.untilMaxRunning("sim", 2)
	a.untilMaxRunning("sim", 2)
	running(2)
	c.quit()
	a.untilMaxRunning("sim", 3)
	running(3)
}
