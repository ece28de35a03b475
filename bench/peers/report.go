package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"text/tabwriter"
)

// report is the result of a run.
type report struct {
	Machine    string  `json:"machine"`
	PostgreSQL string  `json:"postgresql"`
	Redis      string  `json:"redis"`
	Duration   string  `json:"duration"`
	Peers      []*peer `json:"peers"`
	Goals      []goal  `json:"goals"`
}

// goal compares Meanwhile with a peer that does the same.
type goal struct {
	What  string  `json:"what"`
	Got   float64 `json:"times"` // Meanwhile's rate by the peer's
	Bound float64 `json:"at_least"`
	Met   bool    `json:"met"`
}

// The goals: on PostgreSQL ahead of each peer there by half, on SQLite ahead of each durable one.
const (
	postgresGoal = 1.5
	sqliteGoal   = 1
)

// compare fills in the goals. What could not be measured is left out.
func (r *report) compare() {
	for _, own := range r.Peers {
		if own.command != nil || own.PerS == 0 {
			continue
		}
		for _, p := range r.Peers {
			same := own.Place == onSQLite && p.isDurable() || own.Place == p.Place
			if p.command == nil || p.PerS == 0 || p.Batches != own.Batches || !same {
				continue
			}
			g := goal{What: fmt.Sprintf("%s beside %s", own.title(), p.title()), Got: own.PerS / p.PerS, Bound: sqliteGoal}
			if own.Place == onPostgres {
				g.Bound = postgresGoal
			}
			g.Met = g.Got >= g.Bound
			r.Goals = append(r.Goals, g)
		}
	}
}

func (p *peer) title() string {
	title := fmt.Sprintf("%s on %s", p.Name, p.Place)
	if p.Batches {
		title += fmt.Sprintf(", batches of %d", batchJobs)
	}
	return title
}

// print writes the report: the figures, what is behind them, and the goals.
func (r *report) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Fprintf(w, "machine     %s\nPostgreSQL  %s\nRedis       %s\n", r.Machine, r.PostgreSQL, r.Redis)
	fmt.Fprintf(w, "load        %d submitters for %s, %d bytes of input given back as the result; all jobs are done\n\n", submitters, r.Duration, payloadBytes)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "queue\tversion\tdone/s\tsubmit P50\tP99\tCPU for 1,000 jobs\tof it the database")
	for _, p := range r.Peers {
		if p.Error != "" {
			fmt.Fprintf(t, "%s\t%s\tnot measured\n", p.title(), p.Version)
			continue
		}
		thousands := float64(p.Jobs) / 1000
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%.2f ms\t%.2f ms\t%.3f s\t%.3f s\n", p.title(), p.Version, p.PerS, p.P50, p.P99, (p.CPU+p.Database)/thousands, p.Database/thousands)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, p := range r.Peers {
		fmt.Fprintf(w, "%s\n  settings  %s\n  durable   %s\n", p.title(), p.Settings, p.Durable)
		if p.Error != "" {
			fmt.Fprintf(w, "  error     %s\n", p.Error)
		}
	}
	fmt.Fprintln(w)
	for _, g := range r.Goals {
		verdict := "MISS"
		if g.Met {
			verdict = "PASS"
		}
		fmt.Fprintf(w, "%s  %s: %.2f times, at least %.10g\n", verdict, g.What, g.Got, g.Bound)
	}
	return nil
}

// moduleVersion returns the version of a module of this program.
func moduleVersion(path string) string {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return ""
}
