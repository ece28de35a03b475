package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// Report is the result of a run, with the machine and the setup.
type Report struct {
	Machine Machine  `json:"machine"`
	Setup   Setup    `json:"setup"`
	Fsync   Latency  `json:"fsync_4k"` // 4 KiB appended to a file in the data directory and synced
	Figures []Figure `json:"figures"`
}

// Setup describes how the figures were measured.
type Setup struct {
	Server     string  `json:"server"` // URL of the server, or the command that started it
	Data       string  `json:"data"`   // the data directory
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
	Client  string  `json:"client,omitempty"`  // the HTTP client of the load
	Clients int     `json:"clients,omitempty"` // number of concurrent clients, each with its own connection
	Jobs    int     `json:"jobs,omitempty"`    // number of acknowledged jobs
	Seconds float64 `json:"seconds,omitempty"` // from the first request to the end of the last job
	PerS    float64 `json:"done_per_s,omitempty"`
	Latency Latency `json:"latency,omitzero"` // of the operation that How describes
	Flow    *Flow   `json:"flow,omitempty"`
	Others  float64 `json:"others_cores"` // cores used by other programs during the measurement
	Facts   []Fact  `json:"facts,omitempty"`
	Goals   []Goal  `json:"goals,omitempty"`
	Floor   *Figure `json:"http_floor,omitempty"` // the same load on a server that answers from memory
}

// Flow has the additional results of a throughput bench.
type Flow struct {
	SubmitSeconds float64 `json:"submit_seconds"`
	SubmittedPerS float64 `json:"submitted_per_s"`
	Done          int64   `json:"done"` // from the totals of the server
	Refused       int     `json:"refused"`
	BacklogMost   int64   `json:"backlog_most"` // maximum of unfinished jobs
	BacklogEnd    int64   `json:"backlog_end"`  // when the last submit was answered
	Backlog       []Point `json:"backlog"`
	DrainSeconds  float64 `json:"drain_seconds"` // from the last submit until no job was left
	ClientCPU     float64 `json:"client_cpu_seconds"`
	ServerCPU     float64 `json:"server_cpu_seconds,omitempty"` // over the whole run; 0 for a server that was running before
}

// Point is the backlog at one time.
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

// latencyOf computes the distribution. It sorts the samples.
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

// percentile returns the smallest sample that is not below p percent of all samples.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[(len(sorted)*p+99)/100-1]
}

// ms returns a duration in milliseconds, rounded to microseconds.
func ms(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }

func perSecond(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return math.Round(float64(n)/d.Seconds()*10) / 10
}

// seconds returns a duration in seconds, rounded to milliseconds.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e3) / 1e3 }

// Print writes the report as text for people.
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
