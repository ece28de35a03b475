package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

func TestMain(m *testing.M) {
	// The peers in Go are this program again.
	if len(os.Args) > 1 && os.Args[1] == "load" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A run of Meanwhile and of River: the table has both, with versions and CPU times.
func TestRunComparesWithRiver(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs several programs")
	}
	if !pgtest.Installed() && os.Getenv("MEANWHILE_CI") == "" {
		t.Skip("PostgreSQL is not installed: sudo apt-get install postgresql")
	}
	program := filepath.Join(t.TempDir(), "meanwhile")
	if out, err := exec.Command("go", "-C", "../..", "build", "-o", program, "./cmd/meanwhile").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, only := range []string{"meanwhile", "river, tuned"} {
		r, err := measure(t.Context(), options{duration: 200 * time.Millisecond, only: only, needAll: true, server: program, home: "."})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range r.Peers {
			if p.Jobs == 0 || p.PerS <= 0 || p.P50 <= 0 || p.P99 < p.P50 || p.CPU <= 0 || p.Version == "" || p.Database <= 0 && p.Place != onSQLite {
				t.Errorf("%s: %+v", p.title(), p)
			}
		}
		var out bytes.Buffer
		if err := r.print(&out, false); err != nil || strings.Contains(out.String(), "not measured") {
			t.Errorf("%v\n%s", err, out.String())
		}
	}
}

// Meanwhile on PostgreSQL is compared with the peers there, on SQLite with all that keep what they
// acknowledge. Batches are compared with batches.
func TestCompareNamesGoals(t *testing.T) {
	t.Parallel()
	line := func(name string, on place, perS float64, batches, own bool) *peer {
		p := &peer{Name: name, Place: on, Batches: batches, result: result{PerS: perS}}
		if !own {
			p.command = []string{"x"}
		}
		return p
	}
	r := report{Peers: []*peer{
		line("own", onSQLite, 100, false, true), line("own", onPostgres, 100, false, true), line("own", onPostgres, 1000, true, true),
		line("river", onPostgres, 80, false, false), line("river", onPostgres, 500, true, false), line("bull", onRedisSync, 120, false, false),
		line("bull", onRedisCache, 500, false, false), line("broken", onPostgres, 0, false, false),
	}}
	r.compare()
	var got []string
	for _, g := range r.Goals {
		got = append(got, g.What+map[bool]string{true: ": met", false: ": missed"}[g.Met])
	}
	want := []string{
		"own on SQLite beside river on PostgreSQL: met",
		"own on SQLite beside bull on Redis, appendfsync always: missed",
		"own on PostgreSQL beside river on PostgreSQL: missed",
		"own on PostgreSQL, batches of 100 beside river on PostgreSQL, batches of 100: met",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the goals are\n%s", strings.Join(got, "\n"))
	}
}

func TestStatIsParsed(t *testing.T) {
	t.Parallel()
	parent, ticks, err := parseStat([]byte("12 (a name) of) S 7 12 12 0 -1 4194560 1 2 3 4 10 20 300 4000 20 0 1 0"))
	if parent != 7 || ticks != 4330 || err != nil {
		t.Errorf("%d, %d, %v", parent, ticks, err)
	}
	if _, _, err := parseStat([]byte("12 (a) S 7")); err == nil {
		t.Error("a short line is parsed")
	}
	if used, err := treeCPU(os.Getpid()); used <= 0 || err != nil {
		t.Errorf("%s, %v", used, err)
	}
}

func TestPercentileIsSample(t *testing.T) {
	t.Parallel()
	samples := []time.Duration{1e6, 2e6, 3e6, 4e6}
	if p50, p99 := percentile(samples, 50), percentile(samples, 99); p50 != 2 || p99 != 4 {
		t.Errorf("%g, %g", p50, p99)
	}
}
