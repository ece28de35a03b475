// Command crash tests that a server keeps its promises through crashes. It builds the real
// program, runs clients against it, kills it with SIGKILL at random times, and starts it
// again on the same data. It then compares the answers of the server with its earlier
// answers: no acknowledged job is lost; every job ends once; output that a client has read
// is unchanged and without a gap; an idempotency key still returns its job; and the server
// is ready again within a second.
//
// With -postgres there are three servers on a private PostgreSQL. They are killed, stopped and cut
// off from the database, alone and together, the database is killed, and half of the notices
// between them are lost. More is checked then: no two servers hold a job at once, as the work
// itself sees it; no limit of running jobs is passed; output has no gap and no repetition; a
// result is of the last lease. In both modes the calls about each job must be linearizable.
//
// The seed determines the clients' requests and the times of the kills. A run with the same
// seed repeats both, except for differences in the machine's timing.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 20, "number of rounds; each ends with a kill")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "the seed of the run")
	flag.IntVar(&o.clientCount, "clients", 24, "number of clients that submit at once")
	flag.StringVar(&o.binary, "binary", "", "the program to kill; without it, it is built")
	flag.DurationVar(&o.ready, "ready", time.Second, "how soon the server must be ready again")
	postgres := flag.Bool("postgres", false, "three servers on a private PostgreSQL, which fail one by one, together and with it")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := run
	if *postgres {
		do = runPostgres
	}
	if err := do(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "crash: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	rounds      int
	seed        uint64
	clientCount int
	binary      string
	ready       time.Duration
}

func run(ctx context.Context, o options) error {
	fmt.Printf("%d rounds, seed %d\n", o.rounds, o.seed)
	dir, err := os.MkdirTemp("", "meanwhile-crash-")
	if err != nil {
		return err
	}
	in, err := newServerProcess(ctx, dir, o.binary)
	if err != nil {
		return err
	}
	rec := newRecord()
	c, err := newClients(in.transport, rec)
	if err != nil {
		return err
	}
	h := harness{options: o, in: in, clients: c, rec: rec}
	err = h.runRounds(ctx)
	if in.cmd != nil {
		_ = in.kill()
	}
	if err == nil {
		return os.RemoveAll(dir)
	}
	return fmt.Errorf("%w\nthe server's log and data are in %s; repeat the run with -seed %d", err, filepath.Clean(dir), o.seed)
}

// harness is one run.
type harness struct {
	options
	in      *serverProcess
	clients *clients
	rec     *record
}

// runRounds runs all rounds, each of which ends with a kill. It then starts the server
// once more, waits for all jobs and verifies everything.
func (h *harness) runRounds(ctx context.Context) error {
	// Watchers last longer than a round, so they have their own context.
	runCtx, cancelRun := context.WithTimeout(ctx, time.Duration(h.rounds)*2*time.Minute+10*time.Minute)
	defer cancelRun()
	for n := 1; n <= h.rounds; n++ {
		if err := h.round(runCtx, n); err != nil {
			return err
		}
	}
	if _, err := h.start(runCtx); err != nil {
		return err
	}
	h.clients.verifyAfterRestart(runCtx, rand.New(rand.NewPCG(h.seed, 0)))
	h.clients.watchers.Wait()
	if err := h.clients.waitUntilIdle(runCtx); err != nil {
		return err
	}
	h.clients.verifyAll(runCtx)
	if err := h.in.stop(); err != nil {
		return fmt.Errorf("SIGTERM: %w", err)
	}
	t := h.rec.totals()
	fmt.Printf("the end: %d jobs acknowledged, %d ended, %d entries read, %d violations\n", t.jobs, t.ended, t.entries, t.violations)
	return h.rec.result()
}

// round starts the server, verifies the state from before, runs a load and kills the
// server.
func (h *harness) round(runCtx context.Context, n int) error {
	rng := rand.New(rand.NewPCG(h.seed, uint64(n)))
	ready, err := h.start(runCtx)
	if err != nil {
		return err
	}
	h.clients.verifyAfterRestart(runCtx, rng)

	before := h.rec.totals()
	loadCtx, stopLoad := context.WithCancel(runCtx)
	defer stopLoad()
	scripts := make([]*taskSource, h.clientCount)
	for i := range scripts {
		scripts[i] = &taskSource{url: h.clients.receiver.url, rng: rand.New(rand.NewPCG(rng.Uint64(), uint64(i))), name: fmt.Sprintf("r%d-c%d", n, i)}
	}
	loadDone := make(chan struct{})
	go func() {
		defer close(loadDone)
		h.clients.submitUntil(loadCtx, runCtx, scripts)
	}()
	after := 50*time.Millisecond + time.Duration(rng.Int64N(int64(1200*time.Millisecond)))
	sleep(runCtx, after)
	// Kill before the load stops, so that requests are under way at the kill.
	err = h.in.kill()
	stopLoad()
	<-loadDone
	t := h.rec.totals()
	fmt.Printf("round %2d: ready in %3d ms, killed after %4d ms: %5d jobs acked, %5d ended, %6d entries seen, %d promises broken\n",
		n, ready.Milliseconds(), after.Milliseconds(), t.jobs-before.jobs, t.ended-before.ended, t.entries-before.entries, t.violations)
	return err
}

// start starts the server and records a violation if it is not ready in time.
func (h *harness) start(ctx context.Context) (time.Duration, error) {
	took, err := h.in.start(ctx)
	if err == nil && took > h.ready {
		h.rec.addViolation("the server was ready after %v, not within %v", took, h.ready)
	}
	return took, err
}
