package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/bench"
)

type benchOptions struct {
	bench.Options
	json     bool
	verbose  bool
	baseline string
}

func newBenchCommand(env *Env) *cobra.Command {
	o := benchOptions{Options: bench.Defaults()}
	cmd := &cobra.Command{
		Use:   "bench [NAME…]",
		Short: "Measure a server",
		Long: `Measure a server over HTTP, as its users see it:

  sequential   jobs one after another; the client waits for each
  parallel     the same with many clients at once
  throughput   as many jobs as the connections can submit and the server can run,
               with the backlog over time

  idle         a server without work
  watchers     10,000 watchers of a waiting job, which all learn of its end
  isolation    reads of conversations while 5,000 jobs write two words per second,
               and of a status beside 64 lists that match none of 1,000,000 jobs
  streams      1,000 answers of a model, watched token by token
  fairness     one key with 100,000 jobs, and 50 keys with one job each
  callbacks    jobs whose ends are delivered to a receiver on this machine and verified
               there, over 64 connections, and the delays at 500 jobs a second
  retention    600,000 ended jobs deleted under full load
  backlog      a queue with 1,000,000 jobs, compared with an empty one

With --database the servers use that PostgreSQL database, and there are also:

  processes      the load of throughput on three servers of the database, beside one
  pickup         jobs submitted to one server, run by another, waited for on a third
  open-snapshot  the rate after another session held a snapshot open for --duration

Without a NAME the first three run; "all" runs every one. For each figure the
command starts a server from this program, in its own process, on a free port, with
a new data directory under --data that is removed afterwards. --server measures a
running server instead. The report names the machine, the fsync setting and the
payload. It also has two floors from the same run: a sync of 4 KiB on the data's
disk, and the same load on an HTTP server that answers from memory. For every goal
of the project it says whether it was met. With --baseline it ends with the figures
that are clearly worse than those of an earlier run. There is no warm-up.`,
		ValidArgs: append(append(bench.Names(), bench.DatabaseNames()...), bench.All),
		Args:      usageCheck(cobra.OnlyValidArgs),
		RunE:      func(cmd *cobra.Command, names []string) error { return runBench(cmd.Context(), env, o, names) },
	}
	f := cmd.Flags()
	f.StringVar(&o.URL, "server", "", "measure the running server at this `URL`")
	f.StringVar(&o.Data, "data", o.Data, "the directory for the data of the servers; it chooses the disk")
	f.StringVar(&o.Database, "database", "", "the postgres:// `URL` of a database for the servers; each figure uses a schema of its own")
	f.IntVar(&o.Jobs, "jobs", o.Jobs, "sequential and parallel: number of jobs")
	f.IntVar(&o.Clients, "clients", o.Clients, "parallel: number of clients")
	f.IntSliceVar(&o.Connections, "connections", o.Connections, "throughput: numbers of connections; it runs once for each")
	f.DurationVar(&o.Duration, "duration", o.Duration, "how long a load runs")
	f.IntVar(&o.MaxJobs, "max-jobs", o.MaxJobs, "throughput: maximum number of jobs")
	f.IntVar(&o.Payload, "payload", o.Payload, "bytes of a job's input")
	f.IntVar(&o.Keys, "keys", 0, "throughput: spread the jobs over this many keys")
	f.IntVar(&o.Batch, "batch", 0, "throughput: submit this many jobs in one request")
	f.BoolVar(&o.Idempotent, "idempotent", false, "throughput: submit with idempotency keys")
	f.Float64Var(&o.Scale, "scale", o.Scale, "the benches after throughput: multiply their jobs and watchers by this")
	f.StringVar(&o.baseline, "baseline", "", "name what is worse than in this `file`, which a run writes where it is missing")
	f.BoolVar(&o.json, "json", false, "print one JSON document")
	f.BoolVar(&o.verbose, "verbose", false, "show the log of the servers")
	return cmd
}

func runBench(ctx context.Context, env *Env, o benchOptions, names []string) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("this program cannot find itself: %w", err)
	}
	o.Names = names
	// The servers run this same program, so a bench measures its own build.
	o.Serve = []string{program, "serve"}
	o.Floor = []string{program, "bench-floor"}
	o.Model = []string{program, "sim-upstream", "--stamps"}
	o.Step = func(now string) { fmt.Fprintf(env.Err, "… %s\n", now) }
	if o.verbose {
		o.Log = env.Err
	}
	if err := o.Check(); err != nil {
		return usageError{err}
	}
	var baseline *bench.Report
	if o.baseline != "" {
		if baseline, err = bench.ReadBaseline(o.baseline); err != nil {
			return usageError{err}
		}
	}
	report, err := bench.Run(ctx, o.Options)
	// After an error the report still has the earlier figures.
	if o.json {
		err = errors.Join(printJSON(env.Out, report), err)
	} else {
		report.Print(env.Out)
	}
	switch {
	case baseline != nil:
		out := env.Out
		if o.json {
			out = env.Err
		}
		report.PrintWorse(out, baseline)
	case o.baseline != "" && err == nil:
		err = writeBaseline(o.baseline, report)
	}
	return err
}

func writeBaseline(path string, report *bench.Report) error {
	raw, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

// newBenchFloorCommand creates the hidden command that serves the HTTP floor for 'bench'.
func newBenchFloorCommand(env *Env) *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:    "bench-floor",
		Short:  "Answer every submit from memory, for 'meanwhile bench'",
		Hidden: true,
		Args:   usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ln, err := new(net.ListenConfig).Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return fmt.Errorf("cannot listen: %w", err)
			}
			fmt.Fprintf(env.Err, "The floor listens at http://%s\n", ln.Addr())
			return serveUntil(cmd.Context(), ln, bench.NewFloor())
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "the `host:port` to listen on")
	return cmd
}
