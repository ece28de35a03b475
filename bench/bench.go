package bench

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// All is the name that stands for every bench.
const All = "all"

// Names are the benches there are, in the order in which they run.
func Names() []string {
	return append(defaultNames(), "idle", "watchers", "isolation", "streams", "fairness", "retention", "backlog")
}

// defaultNames are the benches that run when none is named: those that need a server and
// nothing else, and are over within a minute.
func defaultNames() []string { return []string{"sequential", "parallel", "throughput"} }

// Options say what to measure. [Defaults] has those of the figures that are quoted.
type Options struct {
	Names []string // which benches; [All] for every one, the first three when empty

	URL   string           // a running server to measure; "" to start one for each figure
	Serve []string         // the command that starts a server; --listen and --data are added to it
	Floor []string         // the command that serves [NewFloor]; --listen is added to it
	Model []string         // the command that serves a model whose every token is its time; --listen is added to it
	Data  string           // the directory in which temporary data directories are made
	Log   io.Writer        // takes what the servers say
	Step  func(now string) // is told what is being measured

	Jobs        int           // of sequential and parallel
	Clients     int           // of parallel
	Connections []int         // of throughput, which runs once for each
	Duration    time.Duration // how long a load is kept up
	MaxJobs     int           // throughput submits no more than this
	Payload     int           // bytes of a job's input
	Idempotent  bool          // whether throughput's submits carry idempotency keys
	Keys        int           // over how many keys throughput spreads its jobs; 0 for none
	Batch       int           // how many jobs throughput submits in one request; 0 for one, by the call for one

	// Scale is the part of the jobs and watchers that the benches after throughput
	// take; 1 for those that their numbers are said of.
	Scale float64
}

// Defaults are the options of the figures that are quoted.
func Defaults() Options {
	return Options{
		Data: ".", Log: io.Discard, Step: func(string) {},
		Jobs: 100, Clients: 20, Connections: []int{64, 256}, Duration: 10 * time.Second, MaxJobs: 2_000_000, Payload: 500,
		Scale: 1,
	}
}

// Bounds of the options.
const (
	maxJobs        = 10_000_000
	maxConnections = 10_000
	minPayload     = 32        // bytes: the input's own words
	maxPayload     = 512 << 10 // bytes
	maxDuration    = time.Hour
	maxKeys        = 1_000_000
	maxBatch       = 1000
	minScale       = 0.0001
	maxScale       = 100
)

// Check says what is wrong with the options.
func (o *Options) Check() error {
	for _, name := range o.Names {
		if name != All && !slices.Contains(Names(), name) {
			return fmt.Errorf("there is no bench %q; there are %v", name, Names())
		}
	}
	for _, name := range o.names() {
		if o.URL != "" && !slices.Contains(defaultNames(), name) {
			return fmt.Errorf("%s measures a server of its own: it cannot be told which", name)
		}
	}
	for _, n := range append([]int{o.Clients}, o.Connections...) {
		if n < 1 || n > maxConnections {
			return fmt.Errorf("clients and connections are 1 to %d, not %d", maxConnections, n)
		}
	}
	switch {
	case o.Jobs < 1 || o.Jobs > maxJobs || o.MaxJobs < 1 || o.MaxJobs > maxJobs:
		return fmt.Errorf("a bench takes 1 to %d jobs", maxJobs)
	case o.Payload < minPayload || o.Payload > maxPayload:
		return fmt.Errorf("a payload has %d to %d bytes, not %d", minPayload, maxPayload, o.Payload)
	case o.Duration <= 0 || o.Duration > maxDuration:
		return fmt.Errorf("a duration is more than 0 and at most %s", maxDuration)
	case o.Keys < 0 || o.Keys > maxKeys:
		return fmt.Errorf("there are 0 to %d keys, not %d", maxKeys, o.Keys)
	case o.Batch < 0 || o.Batch > maxBatch:
		return fmt.Errorf("a batch has up to %d jobs, not %d", maxBatch, o.Batch)
	case !(o.Scale >= minScale && o.Scale <= maxScale):
		return fmt.Errorf("a scale is %g to %d, not %g", minScale, maxScale, o.Scale)
	}
	return nil
}

// names are the benches to run, in their order.
func (o *Options) names() []string {
	switch {
	case len(o.Names) == 0:
		return defaultNames()
	case slices.Contains(o.Names, All):
		return Names()
	}
	return slices.DeleteFunc(Names(), func(name string) bool { return !slices.Contains(o.Names, name) })
}

// scaled is a number of jobs or watchers, to scale.
func (o *Options) scaled(n int) int { return max(1, int(float64(n)*o.Scale)) }

// Run runs the benches. The report has what was measured up to the first error.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	r := &Report{Machine: thisMachine(), Setup: o.setup()}
	o.Step("fsync of 4 KiB")
	var err error
	if r.Fsync, err = measureFsync(ctx, o.Data); err != nil {
		return r, err
	}
	for _, name := range o.names() {
		began, others := len(r.Figures), startOtherLoad()
		if err := o.run(ctx, name, r); err != nil {
			return r, fmt.Errorf("bench %s: %w", name, err)
		}
		for i := began; i < len(r.Figures); i++ {
			r.Figures[i].Others = others.cores()
		}
	}
	return r, nil
}

func (o *Options) run(ctx context.Context, name string, r *Report) error {
	switch name {
	case "sequential":
		return o.runWaited(ctx, name, 1, r)
	case "parallel":
		return o.runWaited(ctx, name, o.Clients, r)
	case "throughput":
		return o.runThroughput(ctx, r)
	}
	f := Figure{Name: name}
	if err := o.ownServerBench(name)(ctx, &f); err != nil {
		return err
	}
	r.Figures = append(r.Figures, f)
	return nil
}

// ownServerBench is a bench that starts and sets up the server that it measures.
func (o *Options) ownServerBench(name string) func(context.Context, *Figure) error {
	switch name {
	case "idle":
		return o.idle
	case "watchers":
		return o.watchers
	case "isolation":
		return o.isolation
	case "streams":
		return o.streams
	case "fairness":
		return o.fairness
	case "retention":
		return o.retention
	default:
		return o.backlog
	}
}

func (o *Options) runThroughput(ctx context.Context, r *Report) error {
	for _, connections := range o.Connections {
		if err := o.throughput(ctx, connections, r); err != nil {
			return err
		}
	}
	return nil
}

// setup describes how it is measured.
func (o *Options) setup() Setup {
	s := Setup{Payload: o.Payload, Idempotent: o.Idempotent, Keys: o.Keys, Batch: o.Batch, Scale: o.Scale}
	if o.URL != "" {
		s.Server, s.Data, s.Sync = o.URL, "of the running server", "as the running server has it"
		return s
	}
	dir, err := filepath.Abs(o.Data)
	if err != nil {
		dir = o.Data
	}
	s.Server = strings.Join(o.Serve, " ") + ", a new process with an empty data directory for each figure"
	s.Data, s.Sync = dir, "SQLite WAL; the log is synced before every acknowledgement"
	return s
}
