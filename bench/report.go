package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// Report is what was measured, and on what.
type Report struct {
	Machine Machine  `json:"machine"`
	Setup   Setup    `json:"setup"`
	Fsync   Latency  `json:"fsync_4k"` // 4 KiB appended to a file in the data directory and synced
	Figures []Figure `json:"figures"`
}

// Setup is how it was measured.
type Setup struct {
	Server     string  `json:"server"` // its URL, or how it was started
	Data       string  `json:"data"`   // where the data was
	Sync       string  `json:"sync"`
	Payload    int     `json:"payload_bytes"`
	Idempotent bool    `json:"idempotency_keys"`
	Keys       int     `json:"keys"`
	Batch      int     `json:"batch"`
	Scale      float64 `json:"scale"`
}

// Figure is one measurement.
type Figure struct {
	Name    string  `json:"name"`
	How     string  `json:"how"`
	Client  string  `json:"client,omitempty"`  // what speaks HTTP for the load
	Clients int     `json:"clients,omitempty"` // at once, each with a connection of its own
	Jobs    int     `json:"jobs,omitempty"`    // acknowledged
	Seconds float64 `json:"seconds,omitempty"` // from the first request to the last job's end
	PerS    float64 `json:"done_per_s,omitempty"`
	Latency Latency `json:"latency,omitzero"` // of what How says
	Flow    *Flow   `json:"flow,omitempty"`
	Others  float64 `json:"others_cores"` // that other programs kept busy meanwhile
	Facts   []Fact  `json:"facts,omitempty"`
	Goals   []Goal  `json:"goals,omitempty"`
	Floor   *Figure `json:"http_floor,omitempty"` // the same load, answered from memory
}

// Flow is what only a throughput bench knows.
type Flow struct {
	SubmitSeconds float64 `json:"submit_seconds"`
	SubmittedPerS float64 `json:"submitted_per_s"`
	Done          int64   `json:"done"` // by the server's own totals
	Refused       int     `json:"refused"`
	BacklogMost   int64   `json:"backlog_most"` // unfinished jobs, as often as asked
	BacklogEnd    int64   `json:"backlog_end"`  // when the last submit was answered
	Backlog       []Point `json:"backlog"`
	DrainSeconds  float64 `json:"drain_seconds"` // until none was left
	ClientCPU     float64 `json:"client_cpu_seconds"`
	ServerCPU     float64 `json:"server_cpu_seconds,omitempty"` // over its whole life, if it was ours
}

// Point is the backlog at a moment.
type Point struct {
	Seconds float64 `json:"s"`
	Jobs    int64   `json:"jobs"`
}

// Latency is a distribution of durations, in milliseconds, from exact samples.
type Latency struct {
	Samples int     `json:"samples"`
	Average float64 `json:"avg_ms"`
	P50     float64 `json:"p50_ms"`
	P90     float64 `json:"p90_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
}

// latencyOf sorts the samples.
func latencyOf(samples []time.Duration) Latency {
	if len(samples) == 0 {
		return Latency{}
	}
	slices.Sort(samples)
	var sum time.Duration
	for _, s := range samples {
		sum += s
	}
	return Latency{
		Samples: len(samples),
		Average: ms(sum / time.Duration(len(samples))),
		P50:     ms(percentile(samples, 50)),
		P90:     ms(percentile(samples, 90)),
		P99:     ms(percentile(samples, 99)),
		Max:     ms(samples[len(samples)-1]),
	}
}

// percentile is the smallest sample that at least p of a hundred are not above.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[(len(sorted)*p+99)/100-1]
}

// ms is a duration in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }

func perSecond(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return math.Round(float64(n)/d.Seconds()*10) / 10
}

// seconds is a duration in seconds, to the millisecond.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e3) / 1e3 }

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "machine   %s, %d cores, %.1f GiB, %s, %s\n", m.CPU, m.Cores, float64(m.Memory)/(1<<30), m.OS, m.Go)
	fmt.Fprintf(w, "server    %s\n", r.Setup.Server)
	fmt.Fprintf(w, "data      %s; %s\n", r.Setup.Data, r.Setup.Sync)
	fmt.Fprintf(w, "payload   %d bytes of input, given back as the result; idempotency keys: %t\n", r.Setup.Payload, r.Setup.Idempotent)
	fmt.Fprintf(w, "fsync     4 KiB: %s\n", r.Fsync)
	for i := range r.Figures {
		r.Figures[i].print(w)
	}
}

func (f *Figure) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n", f.Name, f.How)
	fmt.Fprintf(w, "  others      kept %.2f cores busy meanwhile\n", f.Others)
	if f.Jobs > 0 {
		fmt.Fprintf(w, "  load        %d clients at once, by %s\n", f.Clients, f.Client)
		fmt.Fprintf(w, "  jobs        %d in %.3f s: %.0f/s done\n", f.Jobs, f.Seconds, f.PerS)
		fmt.Fprintf(w, "  latency     %s\n", f.Latency)
	}
	if f.Flow != nil {
		f.Flow.print(w)
	}
	if f.Floor != nil {
		fmt.Fprintf(w, "  HTTP floor  the same load, answered from memory: %.0f/s; %s\n", f.Floor.PerS, f.Floor.Latency)
		fmt.Fprintf(w, "  ratio       %.2f of the floor's rate, %.1f times its P50\n", f.PerS/f.Floor.PerS, f.Latency.P50/f.Floor.Latency.P50)
	}
	for _, fact := range f.Facts {
		fact.print(w)
	}
	for _, goal := range f.Goals {
		goal.print(w)
	}
}

func (f *Flow) print(w io.Writer) {
	fmt.Fprintf(w, "  submitted   %.0f/s for %.3f s; %d refused\n", f.SubmittedPerS, f.SubmitSeconds, f.Refused)
	fmt.Fprintf(w, "  done        %d by the server's own totals; %.3f s after the last submit\n", f.Done, f.DrainSeconds)
	fmt.Fprintf(w, "  backlog     %d at most, %d when the last submit was answered\n", f.BacklogMost, f.BacklogEnd)
	fmt.Fprintf(w, "  CPU         %.1f s by the load, %.1f s by the server\n", f.ClientCPU, f.ServerCPU)
}

func (l Latency) String() string {
	return fmt.Sprintf("avg %.3f, P50 %.3f, P90 %.3f, P99 %.3f, max %.3f ms (%d samples)", l.Average, l.P50, l.P90, l.P99, l.Max, l.Samples)
}
