package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Only figures that both reports have are compared, and only what is clearly worse is named. A
// slower machine makes the floor slower too.
func TestReportNamesWhatGotWorse(t *testing.T) {
	t.Parallel()
	throughput := func(rate, p50, floor float64) Figure {
		f := Figure{Name: "throughput", Clients: 64, PerS: rate, Latency: Latency{P50: p50}}
		if floor > 0 {
			f.Floor = &Figure{PerS: floor, Latency: Latency{P50: 1}}
		}
		return f
	}
	goal := func(what string, got float64, least bool) Figure {
		return Figure{Name: "isolation", How: "lists", Goals: []Goal{{What: what, Got: got, Least: least}}}
	}
	for name, c := range map[string]struct {
		before, now Figure
		want        string
	}{
		"the same":                {throughput(100, 2, 0), throughput(100, 2, 0), ""},
		"noise":                   {throughput(100, 2, 0), throughput(90, 2.5, 0), ""},
		"better":                  {throughput(100, 2, 0), throughput(200, 1, 0), ""},
		"a lower rate":            {throughput(100, 2, 0), throughput(80, 2, 0), "jobs per second"},
		"a higher latency":        {throughput(100, 2, 0), throughput(100, 4, 0), "P50 in ms"},
		"a slower machine":        {throughput(100, 2, 1000), throughput(50, 2, 500), ""},
		"slower than the floor":   {throughput(100, 2, 1000), throughput(100, 2, 2000), "rate beside"},
		"another figure":          {throughput(100, 2, 0), goal("P99", 9, false), ""},
		"a goal's maximum":        {goal("P99", 3, false), goal("P99", 5, false), "P99"},
		"a goal's maximum, noise": {goal("P99", 3, false), goal("P99", 4, false), ""},
		"a goal's minimum":        {goal("claims", 90, true), goal("claims", 50, true), "claims"},
		"another goal":            {goal("P99", 3, false), goal("P50", 5, false), ""},
		"a figure of nothing":     {throughput(0, 0, 0), throughput(0, 0, 0), ""},
	} {
		before, now := &Report{Figures: []Figure{c.before}}, &Report{Figures: []Figure{c.now}}
		worse := now.WorseThan(before)
		if (c.want == "") != (len(worse) == 0) || len(worse) > 0 && !strings.HasPrefix(worse[0].What, c.want) {
			t.Errorf("%s: %+v, want %q", name, worse, c.want)
		}
		var out bytes.Buffer
		if now.PrintWorse(&out, before); !strings.Contains(out.String(), c.want) || strings.Contains(out.String(), "No figure") != (c.want == "") {
			t.Errorf("%s: %s", name, out.String())
		}
	}
}

func TestBaselineIsReadFromReport(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "baseline.json")
	if r, err := ReadBaseline(path); r != nil || err != nil {
		t.Errorf("a missing file: %v, %v", r, err)
	}
	for text, ok := range map[string]bool{`{"figures":[{"name":"idle"}]}`: true, `no report`: false} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := ReadBaseline(path); (err == nil) != ok || ok && r.Figures[0].Name != "idle" {
			t.Errorf("%s: %s, %v", text, fmt.Sprint(r), err)
		}
	}
}
