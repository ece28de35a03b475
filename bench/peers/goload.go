package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// goLoad is a job queue that is a Go library. Its workers run in the process of the submitters.
type goLoad interface {
	// submit returns once the queue has acknowledged n jobs with this input.
	submit(ctx context.Context, input string, n int) error
	// ran returns how many jobs the workers have run.
	ran() int64
	// done returns how many jobs are done, by what the queue has stored.
	done(ctx context.Context) (int64, error)
	close()
}

const (
	warmTime   = 2 * time.Second // of jobs before the measurement
	warmJobs   = 10              // of each submitter, at most
	mostWaits  = 5000            // jobs that are not done while batches are submitted
	drainLimit = 5 * time.Minute // for the last job
)

// runGoPeer is the program of a peer in Go.
func runGoPeer(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("load needs the name of a peer")
	}
	ms, err := strconv.Atoi(os.Getenv(durationVariable))
	if err != nil {
		return fmt.Errorf("%s: %w", durationVariable, err)
	}
	l, version, err := openGoPeer(ctx, args[0], os.Getenv(urlVariable))
	if err != nil {
		return err
	}
	defer l.close()
	r := goRun{goLoad: l, input: strings.Repeat("x", payloadBytes), submitters: submitters, jobs: 1}
	if strings.HasSuffix(args[0], "-batch") {
		r.submitters, r.jobs = batchers, batchJobs
	}
	if _, err := r.run(ctx, time.Now().Add(warmTime), warmJobs); err != nil {
		return err
	}
	fmt.Printf("{\"version\":%q}\n", version)
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	measured, err := r.run(ctx, time.Now().Add(time.Duration(ms)*time.Millisecond), math.MaxInt)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(measured); err != nil {
		return err
	}
	_, _ = in.ReadByte() // until its input ends
	return nil
}

func openGoPeer(ctx context.Context, name, url string) (goLoad, string, error) {
	switch name {
	case "asynq":
		return openAsynq(ctx, url)
	case "river", "river-tuned", "river-batch":
		return openRiver(ctx, url, name != "river")
	}
	return nil, "", fmt.Errorf("there is no peer %q", name)
}

// goRun submits jobs by several goroutines.
type goRun struct {
	goLoad
	input      string
	submitters int
	jobs       int          // of a submit
	submitted  atomic.Int64 // jobs, by all runs
}

// run submits until a time or a number of submits of each submitter, whichever is first, and waits
// until all jobs are done.
func (r *goRun) run(ctx context.Context, until time.Time, submits int) (result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts := make([][]time.Duration, r.submitters)
	before, began := r.submitted.Load(), time.Now()
	var all sync.WaitGroup
	for i := range r.submitters {
		all.Go(func() {
			for range submits {
				if !time.Now().Before(until) || ctx.Err() != nil {
					return
				}
				start := time.Now()
				if err := r.submit(ctx, r.input, r.jobs); err != nil {
					cancel(err)
					return
				}
				parts[i] = append(parts[i], time.Since(start))
				r.submitted.Add(int64(r.jobs))
				r.limitBacklog(ctx)
			}
		})
	}
	all.Wait()
	err := context.Cause(ctx)
	if err == nil {
		err = r.drain(ctx)
	}
	samples := slices.Sorted(slices.Values(slices.Concat(parts...)))
	return result{
		Jobs: int(r.submitted.Load() - before), Seconds: time.Since(began).Seconds(),
		P50: percentile(samples, 50), P99: percentile(samples, 99),
	}, err
}

// limitBacklog waits while batches are far ahead of the workers, as Meanwhile's bench does.
func (r *goRun) limitBacklog(ctx context.Context) {
	for r.jobs > 1 && r.submitted.Load()-r.ran() > mostWaits && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
}

// drain waits until all jobs are done.
func (r *goRun) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, drainLimit, fmt.Errorf("not all jobs were done within %s", drainLimit))
	defer cancel()
	for {
		n, err := r.done(ctx)
		if err != nil || n >= r.submitted.Load() {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// percentile returns the smallest sample, in milliseconds, that is not below p percent of all.
func percentile(sorted []time.Duration, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[(len(sorted)*p+99)/100-1].Microseconds()) / 1000
}
