package server

import (
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// serveOn starts a server on a database.
func serveOn(t *testing.T, database string, change func(*config.Config)) *testServer {
	t.Helper()
	return serve(t, func(c *config.Config) {
		c.Database = database
		if change != nil {
			change(c)
		}
	})
}

func TestServerRunsJobsOnPostgres(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t).Schema(t)
	s := serveOn(t, db.URL(), nil)
	if status, text := s.text("GET", "/readyz", ""); status != 200 || text != "ready\n" {
		t.Errorf("/readyz: %d %q", status, text)
	}
	status, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"hello"}}`, "Prefer", "wait=20")
	if status != 200 || j["status"] != "succeeded" {
		t.Fatalf("%d %v", status, j)
	}
	id := j["id"].(string)
	s.quit()
	again := serveOn(t, db.URL(), nil)
	if status, text := again.text("GET", "/v1/jobs/"+id+"/result", ""); status != 200 || !strings.Contains(text, "hello") {
		t.Errorf("after a restart: %d %q", status, text)
	}
}
