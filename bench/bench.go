package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// All is the name that selects every bench.
const All = "all"

// Names returns the names of all benches, in the order in which they run.
func Names() []string {
	return append(defaultNames(), "idle", "watchers", "isolation", "streams", "fairness", "callbacks", "retention", "backlog")
}

// DatabaseNames returns the names of the benches that need a database.
func DatabaseNames() []string { return []string{"processes", "pickup", "open-snapshot"} }

// defaultNames returns the benches that run when none is named. They need only a server
// and take less than a minute.
func defaultNames() []string { return []string{"sequential", "parallel", "throughput"} }

// Options select what to measure. [Defaults] returns the options of the published figures.
type Options struct {
	Names []string // names of benches, or [All]; the default benches when empty

	URL   string   // URL of a running server; "" to start a server for each figure
	Serve []string // command that starts a server; --listen and --data are appended
	Floor []string // command that serves [NewFloor]; --listen is appended
	Model []string // command that serves a model; each token is its send time; --listen is appended
	// Database is the postgres:// URL of a database that the servers use, each figure in a schema
	// of its own; "" for SQLite in the data directory.
	Database string
	Data     string           // directory for the temporary data directories
	Log      io.Writer        // receives the log of the servers
	Step     func(now string) // is called with a description of each step

	Jobs        int           // number of jobs of sequential and parallel
	Clients     int           // number of clients of parallel
	Connections []int         // numbers of connections of throughput, which runs once for each
	Duration    time.Duration // how long a load runs
	MaxJobs     int           // maximum of jobs that throughput submits
	Payload     int           // bytes of a job's input
	Idempotent  bool          // whether throughput submits with idempotency keys
	Keys        int           // number of keys of throughput's jobs; 0 for no keys
	Batch       int           // jobs per request of throughput; 0 submits each job by itself

	// Scale multiplies the number of jobs and watchers of the benches after throughput. The
	// goals hold for 1.
	Scale float64
}

// Defaults returns the options of the published figures.
func Defaults() Options {
	return Options{
		Data: ".", Log: io.Discard, Step: func(string) {},
		Jobs: 100, Clients: 20, Connections: []int{64, 256}, Duration: 10 * time.Second, MaxJobs: 2_000_000, Payload: 500,
		Scale: 1,
	}
}

// The limits of the options.
const (
	maxJobs        = 10_000_000
	maxConnections = 10_000
	minPayload     = 32        // bytes of an input without its padding
	maxPayload     = 512 << 10 // bytes
	maxDuration    = time.Hour
	maxKeys        = 1_000_000
	maxBatch       = 1000
	minScale       = 0.0001
	maxScale       = 100
)

// Check returns an error for invalid options.
func (o *Options) Check() error {
	for _, name := range o.Names {
		switch {
		case slices.Contains(DatabaseNames(), name) && o.Database == "":
			return fmt.Errorf("%s measures several servers of one database: name it with --database", name)
		case name != All && !slices.Contains(o.available(), name):
			return fmt.Errorf("there is no bench %q; there are %v", name, o.available())
		}
	}
	for _, name := range o.names() {
		// These benches configure the server, kill it or read its memory.
		if o.URL != "" && !slices.Contains(defaultNames(), name) {
			return fmt.Errorf("%s starts its own server and cannot measure a running one", name)
		}
	}
	for _, n := range append([]int{o.Clients}, o.Connections...) {
		if n < 1 || n > maxConnections {
			return fmt.Errorf("clients and connections are 1 to %d, not %d", maxConnections, n)
		}
	}
	switch {
	case o.URL != "" && o.Database != "":
		return errors.New("a running server has its database already: leave --database out")
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

// names returns the benches to run, in order.
func (o *Options) names() []string {
	switch {
	case len(o.Names) == 0:
		return defaultNames()
	case slices.Contains(o.Names, All):
		return o.available()
	}
	return slices.DeleteFunc(o.available(), func(name string) bool { return !slices.Contains(o.Names, name) })
}

// available returns the names of the benches that can run.
func (o *Options) available() []string {
	if o.Database != "" {
		return append(Names(), DatabaseNames()...)
	}
	return Names()
}

// scaled returns a number of jobs or watchers, multiplied by Scale.
func (o *Options) scaled(n int) int { return max(1, int(float64(n)*o.Scale)) }

// Run runs the benches. After an error the report has the figures measured before it.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	r := &Report{Machine: thisMachine()}
	var err error
	if r.Setup, err = o.setup(ctx); err != nil {
		return r, fmt.Errorf("the database cannot be used: %w", err)
	}
	o.Step("fsync of 4 KiB")
	if r.Fsync, err = measureFsync(ctx, o.Data); err != nil {
		return r, err
	}
	for _, name := range o.names() {
		// One bench can add several figures. All of them get the same value of Others.
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
	for _, measure := range o.ownServerBenches(name) {
		f := Figure{Name: name}
		if err := measure(ctx, &f); err != nil {
			return err
		}
		r.Figures = append(r.Figures, f)
	}
	return nil
}

// ownServerBenches returns the benches of a name, which start and configure their own servers.
// Each adds a figure.
func (o *Options) ownServerBenches(name string) []func(context.Context, *Figure) error {
	switch name {
	case "idle":
		return []func(context.Context, *Figure) error{o.idle}
	case "watchers":
		return []func(context.Context, *Figure) error{o.watchers}
	case "isolation":
		return []func(context.Context, *Figure) error{o.outputIsolation, o.listIsolation, o.commandIsolation}
	case "streams":
		return []func(context.Context, *Figure) error{o.streams}
	case "callbacks":
		return []func(context.Context, *Figure) error{o.callbacks, o.callbackDelays}
	case "fairness":
		return []func(context.Context, *Figure) error{o.fairness}
	case "retention":
		return []func(context.Context, *Figure) error{o.retention}
	case "processes":
		return []func(context.Context, *Figure) error{o.processes}
	case "pickup":
		return []func(context.Context, *Figure) error{o.pickup}
	case "open-snapshot":
		return []func(context.Context, *Figure) error{o.openSnapshot}
	default:
		return []func(context.Context, *Figure) error{o.backlog}
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

// setup describes the setup for the report.
func (o *Options) setup(ctx context.Context) (s Setup, err error) {
	s = Setup{Payload: o.Payload, Idempotent: o.Idempotent, Keys: o.Keys, Batch: o.Batch, Scale: o.Scale}
	if o.URL != "" {
		s.Server, s.Data, s.Sync = o.URL, "of the running server", "as the running server has it"
		return s, nil
	}
	dir, err := filepath.Abs(o.Data)
	if err != nil {
		dir = o.Data
	}
	s.Server = strings.Join(o.Serve, " ") + ", a new process with an empty data directory for each figure"
	if o.Database != "" {
		s.Data, s.Sync, err = databaseSetup(ctx, o.Database)
		return s, err
	}
	s.Data, s.Sync = dir, "SQLite WAL; the log is synced before every acknowledgement"
	return s, nil
}
