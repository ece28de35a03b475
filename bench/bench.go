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

// Names are the benches there are, in the order in which they run.
func Names() []string { return []string{"sequential", "parallel", "throughput"} }

// Options say what to measure. [Defaults] has those of the figures that are quoted.
type Options struct {
	Names []string // which benches; all when empty

	URL   string           // a running server to measure; "" to start one for each figure
	Serve []string         // the command that starts a server; --listen and --data are added to it
	Floor []string         // the command that serves [NewFloor]; --listen is added to it
	Data  string           // the directory in which temporary data directories are made
	Log   io.Writer        // takes what the servers say
	Step  func(now string) // is told what is being measured

	Jobs        int           // of sequential and parallel
	Clients     int           // of parallel
	Connections []int         // of throughput, which runs once for each
	Duration    time.Duration // of throughput
	MaxJobs     int           // throughput submits no more than this
	Payload     int           // bytes of a job's input
	Keys        bool          // whether throughput's submits carry idempotency keys
}

// Defaults are the options of the figures that are quoted.
func Defaults() Options {
	return Options{
		Data: ".", Log: io.Discard, Step: func(string) {},
		Jobs: 100, Clients: 20, Connections: []int{64, 256}, Duration: 10 * time.Second, MaxJobs: 2_000_000, Payload: 500,
	}
}

// Bounds of the options.
const (
	mostJobs        = 10_000_000
	mostConnections = 10_000
	leastPayload    = 32        // bytes: the input's own words
	mostPayload     = 512 << 10 // bytes
	mostDuration    = time.Hour
)

// Check says what is wrong with the options.
func (o *Options) Check() error {
	for _, name := range o.Names {
		if !slices.Contains(Names(), name) {
			return fmt.Errorf("there is no bench %q; there are %v", name, Names())
		}
	}
	for _, n := range append([]int{o.Clients}, o.Connections...) {
		if n < 1 || n > mostConnections {
			return fmt.Errorf("clients and connections are 1 to %d, not %d", mostConnections, n)
		}
	}
	switch {
	case o.Jobs < 1 || o.Jobs > mostJobs || o.MaxJobs < 1 || o.MaxJobs > mostJobs:
		return fmt.Errorf("a bench takes 1 to %d jobs", mostJobs)
	case o.Payload < leastPayload || o.Payload > mostPayload:
		return fmt.Errorf("a payload has %d to %d bytes, not %d", leastPayload, mostPayload, o.Payload)
	case o.Duration <= 0 || o.Duration > mostDuration:
		return fmt.Errorf("a duration is more than 0 and at most %s", mostDuration)
	}
	return nil
}

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
	for _, name := range Names() {
		if len(o.Names) > 0 && !slices.Contains(o.Names, name) {
			continue
		}
		if err := o.run(ctx, name, r); err != nil {
			return r, fmt.Errorf("bench %s: %w", name, err)
		}
	}
	return r, nil
}

func (o *Options) run(ctx context.Context, name string, r *Report) error {
	switch name {
	case "sequential":
		return o.waited(ctx, name, 1, r)
	case "parallel":
		return o.waited(ctx, name, o.Clients, r)
	}
	for _, connections := range o.Connections {
		if err := o.throughput(ctx, connections, r); err != nil {
			return err
		}
	}
	return nil
}

// setup describes how it is measured.
func (o *Options) setup() Setup {
	s := Setup{Payload: o.Payload, Keys: o.Keys}
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
