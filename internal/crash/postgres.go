package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// clusterRun is a run with three servers on one database.
type clusterRun struct {
	options
	cluster *cluster
	clients *clients
	rec     *record
	holders *holders
}

// runPostgres runs the rounds with three servers on one database.
func runPostgres(ctx context.Context, o options) (err error) {
	fmt.Printf("%d rounds with %d servers on PostgreSQL, seed %d\n", o.rounds, servers, o.seed)
	dir, err := os.MkdirTemp("", "meanwhile-crash-")
	if err != nil {
		return err
	}
	r := &clusterRun{options: o, rec: newRecord()}
	if r.holders, err = newHolders(r.rec); err != nil {
		return err
	}
	defer r.holders.close()
	r.cluster, err = newCluster(ctx, dir, o.binary, r.holders)
	if r.cluster != nil {
		defer r.cluster.remove()
	}
	if err == nil {
		r.clients, err = newClients(r.cluster.transport(), r.rec)
	}
	if err == nil {
		r.clients.holders = r.holders
		err = r.runRounds(ctx)
	}
	if err == nil {
		return os.RemoveAll(dir)
	}
	return fmt.Errorf("%w\nthe servers' logs are in %s; repeat the run with -postgres -seed %d", err, filepath.Clean(dir), o.seed)
}

// runRounds runs all rounds, waits for all jobs and verifies everything.
func (r *clusterRun) runRounds(ctx context.Context) error {
	runCtx, cancelRun := context.WithTimeout(ctx, time.Duration(r.rounds)*2*time.Minute+10*time.Minute)
	defer cancelRun()
	for n := 1; n <= r.rounds; n++ {
		if err := r.round(runCtx, n); err != nil {
			return err
		}
	}
	r.clients.watchers.Wait()
	if err := r.clients.waitUntilIdle(runCtx); err != nil {
		return err
	}
	r.clients.verifyAll(runCtx)
	r.holders.checks.Wait()
	if err := r.cluster.stop(); err != nil {
		return fmt.Errorf("SIGTERM: %w", err)
	}
	t := r.rec.totals()
	fmt.Printf("the end: %d jobs acknowledged, %d ended, %d entries read, %d calls of work, at most %d at once, %d violations\n",
		t.jobs, t.ended, t.entries, r.holders.count, r.holders.widest, t.violations)
	return r.rec.result()
}

// round starts what does not run, runs a load with faults, and verifies.
func (r *clusterRun) round(runCtx context.Context, n int) error {
	rng := rand.New(rand.NewPCG(r.seed, uint64(n)))
	if err := r.cluster.start(runCtx); err != nil {
		return err
	}
	before := r.rec.totals()
	loadCtx, stopLoad := context.WithCancel(runCtx)
	defer stopLoad()
	scripts := make([]*taskSource, r.clientCount)
	for i := range scripts {
		scripts[i] = &taskSource{url: r.clients.receiver.url, rng: rand.New(rand.NewPCG(rng.Uint64(), uint64(i))), name: fmt.Sprintf("r%d-c%d", n, i), hasWork: true}
	}
	loadDone := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(loadDone)
		r.clients.submitUntil(loadCtx, runCtx, scripts)
	}()
	happened, err := haveFaults(runCtx, r.cluster, r.holders, rng, 2*time.Second)
	over := time.Since(began)
	stopLoad()
	<-loadDone
	if err != nil {
		return err
	}
	r.clients.verifyAfterRestart(runCtx, rng)
	t := r.rec.totals()
	fmt.Printf("round %2d: %s; %v of load, verified after %v: %5d jobs acked, %5d ended, %6d entries seen, %d promises broken\n",
		n, happened, over.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), t.jobs-before.jobs, t.ended-before.ended, t.entries-before.entries, t.violations)
	return nil
}
