package bench

import (
	"fmt"
	"io"
	"math"
	"time"
)

// Fact is a setting or a measurement of a bench: a value or a spread.
type Fact struct {
	What   string   `json:"what"`
	Value  float64  `json:"value"`
	Unit   string   `json:"unit,omitempty"`
	Spread *Latency `json:"spread,omitempty"`
}

// Goal is a required number and the measured one.
type Goal struct {
	What  string  `json:"what"`
	Got   float64 `json:"got"`
	Bound float64 `json:"bound"`
	Least bool    `json:"least"` // whether Bound is a minimum; otherwise it is a maximum
	Unit  string  `json:"unit,omitempty"`
	Met   bool    `json:"met"`
}

func (f *Figure) fact(what string, value float64, unit string) {
	f.Facts = append(f.Facts, Fact{What: what, Value: round(value), Unit: unit})
}

func (f *Figure) spread(what string, samples []time.Duration) Latency {
	l := latencyOf(samples)
	f.Facts = append(f.Facts, Fact{What: what, Spread: &l})
	return l
}

// goalMax adds a goal: the value must not exceed the bound.
func (f *Figure) goalMax(what string, got, bound float64, unit string) {
	f.Goals = append(f.Goals, Goal{What: what, Got: round(got), Bound: round(bound), Unit: unit, Met: got <= bound})
}

// goalMin adds a goal: the value must not be below the bound.
func (f *Figure) goalMin(what string, got, bound float64, unit string) {
	f.Goals = append(f.Goals, Goal{What: what, Got: round(got), Bound: round(bound), Unit: unit, Least: true, Met: got >= bound})
}

// round rounds to three places, so that the printed and the JSON value are the same.
func round(v float64) float64 { return math.Round(v*1e3) / 1e3 }

func (f Fact) print(w io.Writer) {
	if f.Spread != nil {
		fmt.Fprintf(w, "  %-26s %s\n", f.What, f.Spread)
		return
	}
	fmt.Fprintf(w, "  %-26s %s\n", f.What, amount(f.Value, f.Unit))
}

func (g Goal) print(w io.Writer) {
	verdict, bound := "MISS", "at most"
	if g.Met {
		verdict = "PASS"
	}
	if g.Least {
		bound = "at least"
	}
	fmt.Fprintf(w, "  %s  %s: %s, %s %s\n", verdict, g.What, amount(g.Got, g.Unit), bound, amount(g.Bound, g.Unit))
}

func amount(v float64, unit string) string {
	if unit == "" {
		return fmt.Sprintf("%.10g", v)
	}
	return fmt.Sprintf("%.10g %s", v, unit)
}

// mib converts bytes to MiB, the unit of the goals.
func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// kib converts bytes to KiB, the unit of the goals.
func kib(bytes int64) float64 { return float64(bytes) / (1 << 10) }
