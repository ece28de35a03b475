package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// The factors past which a figure counts as worse than before. Two runs on the same quiet
// machine differ by less.
const (
	worseRate    = 0.85 // jobs done per second
	worseLatency = 1.5  // P50 of a latency; the P99 of few samples says less
	worseGoal    = 1.5  // what a goal bounds
)

// Worse is a figure that is worse than the same figure of an earlier report.
type Worse struct {
	Figure string  // its name and how it was measured
	What   string  // which of its numbers
	Before float64 // in the earlier report
	Now    float64
}

// ReadBaseline reads the report that an earlier run has written to a file. A missing file is no
// report.
func ReadBaseline(path string) (*Report, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%s is no report of 'bench --json': %w", path, err)
	}
	return r, nil
}

// WorseThan returns the figures that are clearly worse than in an earlier report. Figures that
// only one of them has are left out. Rates and latencies that the reports also measured for the
// HTTP floor are compared by their ratio to it, so that another machine, or the same one while
// it is busy, does not count as slower.
func (r *Report) WorseThan(before *Report) (worse []Worse) {
	earlier := map[string]*Figure{}
	for i := range before.Figures {
		f := &before.Figures[i]
		earlier[f.id()] = f
	}
	for i := range r.Figures {
		now := &r.Figures[i]
		then := earlier[now.id()]
		if then == nil {
			continue
		}
		add := func(what string, before, after float64, isWorse bool) {
			if isWorse && before > 0 {
				worse = append(worse, Worse{now.id(), what, round(before), round(after)})
			}
		}
		what, a, b := then.rate(now)
		add(what, a, b, b < a*worseRate)
		what, a, b = then.latency(now)
		add(what, a, b, b > a*worseLatency)
		for _, g := range now.Goals {
			for _, old := range then.Goals {
				if old.What == g.What {
					add(g.What, old.Got, g.Got, g.Least && g.Got*worseGoal < old.Got || !g.Least && g.Got > old.Got*worseGoal)
				}
			}
		}
	}
	return worse
}

// id tells figures of one name apart.
func (f *Figure) id() string {
	if f.Clients > 0 {
		return fmt.Sprintf("%s, %d clients", f.Name, f.Clients)
	}
	return f.Name + ": " + f.How
}

// rate returns the rates of two measurements of a figure, as parts of the floor's where both
// have one.
func (f *Figure) rate(now *Figure) (what string, before, after float64) {
	if f.Floor != nil && now.Floor != nil && f.Floor.PerS > 0 && now.Floor.PerS > 0 {
		return "rate beside the HTTP floor's", f.PerS / f.Floor.PerS, now.PerS / now.Floor.PerS
	}
	return "jobs per second", f.PerS, now.PerS
}

// latency is rate for the median latency.
func (f *Figure) latency(now *Figure) (what string, before, after float64) {
	if f.Floor != nil && now.Floor != nil && f.Floor.Latency.P50 > 0 && now.Floor.Latency.P50 > 0 {
		return "P50 beside the HTTP floor's", f.Latency.P50 / f.Floor.Latency.P50, now.Latency.P50 / now.Floor.Latency.P50
	}
	return "P50 in ms", f.Latency.P50, now.Latency.P50
}

// PrintWorse names what is worse than in the earlier report.
func (r *Report) PrintWorse(w io.Writer, before *Report) {
	worse := r.WorseThan(before)
	if len(worse) == 0 {
		fmt.Fprintln(w, "\nNo figure is clearly worse than in the baseline.")
		return
	}
	fmt.Fprintln(w, "\nWorse than in the baseline; run it again before you look for a cause:")
	for _, one := range worse {
		fmt.Fprintf(w, "  %s\n    %s: %.10g, was %.10g\n", one.Figure, one.What, one.Now, one.Before)
	}
}
