// Command peers measures Meanwhile beside other job queues, in one run on one machine: River,
// graphile-worker, pg-boss and BullMQ on the PostgreSQL that Meanwhile uses, BullMQ, asynq and
// Celery on Redis. All do the same job, whose input of 500 bytes is its result. It starts a
// PostgreSQL and Redis servers of its own, in temporary directories, and prints one table with
// versions and settings, and what each acknowledges before it is on the disk.
//
// It is a module of its own, so that Meanwhile does not depend on what it is compared with.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options say what is measured, and for how long.
type options struct {
	duration time.Duration // of the submits of each peer
	only     string        // measures the peers whose name has this part; "" for all
	needAll  bool          // a peer that cannot run is an error, instead of a line of the table
	json     bool          // prints one JSON document
	server   string        // the program meanwhile
	home     string        // the directory of this module, with node/ and python/
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 && args[0] == "load" {
		return runGoPeer(ctx, args[1:])
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	r, err := measure(ctx, o)
	if r != nil {
		err = errors.Join(err, r.print(os.Stdout, o.json))
	}
	return err
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.DurationVar(&o.duration, "duration", 10*time.Second, "how long each peer's jobs are submitted")
	flags.StringVar(&o.only, "only", "", "measure only the peers whose name contains this `text`")
	flags.BoolVar(&o.needAll, "all", false, "fail if a peer cannot run, instead of a line that says so")
	flags.BoolVar(&o.json, "json", false, "print one JSON document")
	flags.StringVar(&o.server, "meanwhile", "../../bin/meanwhile", "the `program` meanwhile")
	flags.StringVar(&o.home, "home", ".", "the `directory` that has node/ and python/ with the installed peers")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.duration <= 0 || o.duration > time.Hour {
		return o, fmt.Errorf("a duration is more than 0 and at most 1h, not %s", o.duration)
	}
	_, err = os.Stat(o.server)
	return o, err
}

// measure runs all peers, one after another.
func measure(ctx context.Context, o options) (*report, error) {
	s, err := startServers()
	if err != nil {
		return nil, err
	}
	defer s.close()
	r := &report{Machine: thisMachine(), PostgreSQL: s.postgresVersion, Redis: s.redisVersion, Duration: o.duration.String()}
	for _, p := range peers(&o) {
		if !strings.Contains(strings.ToLower(p.Name), strings.ToLower(o.only)) {
			continue
		}
		fmt.Fprintf(os.Stderr, "… %s, %s\n", p.Name, p.Place)
		err := p.measure(ctx, s, &o)
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if err != nil && o.needAll {
			return r, fmt.Errorf("%s: %w", p.Name, err)
		}
		if err != nil {
			p.Error = err.Error()
		}
		r.Peers = append(r.Peers, p)
	}
	r.compare()
	return r, nil
}
