package server

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

var ofDatabase = regexp.MustCompile(`(?m)^(meanwhile_(?:database|bus)_[a-z_]+)(\{[^}]*\})? (\S+)$`)

// samples returns the metrics of the database in a scrape: their values by name and labels.
func (s *testServer) samples() (values map[string]string, names map[string]bool) {
	s.t.Helper()
	values, names = map[string]string{}, map[string]bool{}
	_, text := s.text("GET", "/metrics", "")
	for _, m := range ofDatabase.FindAllStringSubmatch(text, -1) {
		values[m[1]+m[2]], names[m[1]] = m[3], true
	}
	return values, names
}

func TestMetricsOfServerOnPostgres(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(meanwhile_(?:database|bus)_[a-z_]+)`").FindAllStringSubmatch(string(page), -1) {
		described[row[1]] = true
	}
	s := serveOn(t, pgtest.Shared(t).Schema(t).URL(), nil)
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":1}}`, "Prefer", "wait=20")
	values, names := s.samples()
	for deadline := time.Now().Add(time.Minute); values["meanwhile_bus_up"] != "1" && time.Now().Before(deadline); values, names = s.samples() {
	}
	// A table of a short test was never vacuumed.
	delete(described, "meanwhile_database_vacuum_age_seconds")
	delete(names, "meanwhile_database_vacuum_age_seconds")
	if !maps.Equal(names, described) || len(described) < 15 {
		t.Errorf("it shows %v, and the manual has %v", slices.Sorted(maps.Keys(names)), slices.Sorted(maps.Keys(described)))
	}
	for name, want := range map[string]string{
		"meanwhile_database_up": "1", "meanwhile_bus_lost_notices_total": "0",
		`meanwhile_database_pool_connections_max{pool="reads"}`: "4", `meanwhile_database_pool_connections_max{pool="files"}`: "5",
		"meanwhile_database_synchronous": "0", "meanwhile_database_sessions_max": "",
		`meanwhile_database_rows{table="jobs"}`: "", "meanwhile_database_bytes": "",
	} {
		if got, shown := values[name]; !shown || want != "" && got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if _, text := s.text("GET", "/metrics", ""); !strings.Contains(text, `meanwhile_queue_jobs{queue="sim",state="queued"} 0`) || !strings.Contains(text, "\nmeanwhile_store_bytes ") {
		t.Error("the metrics of queues or the store's size are missing")
	}
}

func TestServerWithoutDatabaseShowsNoMetricsOfOne(t *testing.T) {
	t.Parallel()
	onlySQLite(t)
	if values, _ := serve(t, nil).samples(); len(values) != 0 {
		t.Errorf("it shows %v", values)
	}
}
